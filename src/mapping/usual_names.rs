//! How people name columns: what a section is guessed by. Lower case, without anything but letters and digits; the best first.
//!
//! * In: nothing.
//! * Out: lists, one for each of Planhat's fields.
//! * Never: a decision.

pub(crate) const EMAIL: &[&str] = &["email", "useremail", "emailaddress", "mail", "contactemail"];
pub(crate) const USER: &[&str] = &[
    "userid",
    "enduserid",
    "endusers",
    "uid",
    "userexternalid",
    "contactid",
    "personid",
    "memberid",
    "loginid",
    "authorid",
    "actorid",
    "createdby",
    "createdbyid",
    "creatorid",
    "ownerid",
    "executorid",
    "useruuid",
    "subscriberid",
    "profileid",
    "employeeid",
    "visitorid",
    "senderid",
    "distinctid",
    "anonymousid",
    "user",
    "username",
    "author",
    "actor",
];
pub(crate) const COMPANY: &[&str] = &[
    "accountid",
    "companyid",
    "companyexternalid",
    "orgid",
    "organizationid",
    "organisationid",
    "tenantid",
    "customerid",
    "workspaceid",
    "clientid",
    "teamid",
    "externalid",
    "account",
    "company",
    "tenant",
    "customer",
];
pub(crate) const ACTION: &[&str] = &[
    "action",
    "event",
    "eventname",
    "eventtype",
    "activity",
    "activityname",
    "activitytype",
    "actionname",
    "type",
    "kind",
];
pub(crate) const DATE: &[&str] = &[
    "occurredat",
    "happenedat",
    "eventtime",
    "eventat",
    "timestamp",
    "loggedat",
    "recordedat",
    "measuredat",
    "visitedat",
    "createdat",
    "created",
    "insertedat",
    "receivedat",
    "day",
    "date",
    "at",
    "ts",
    "time",
    "createdon",
    "period",
];
pub(crate) const WEIGHT: &[&str] = &["weight", "amount", "count", "quantity", "qty", "number", "cnt"];
pub(crate) const VALUE: &[&str] = &[
    "value", "amount", "count", "total", "quantity", "qty", "seats", "usage", "used", "score", "sum", "number", "cnt",
    "balance", "size",
];
pub(crate) const DIMENSION: &[&str] =
    &["dimensionid", "dimension", "metric", "metricname", "metricid", "measure", "property"];
pub(crate) const INFO: &[&str] =
    &["info", "properties", "metadata", "meta", "attributes", "payload", "details", "data", "context", "extra"];
/// Names that say little: what is found by them is a guess.
pub(crate) const VAGUE: &[&str] =
    &["type", "kind", "number", "size", "at", "clientid", "teamid", "customerid", "externalid", "code"];
/// What the name of a column ends in that tells for which day, week or hour a row is.
pub(crate) const DAY: &[&str] = &["day", "date", "week", "month", "period", "hour", "bucket"];
/// What the name of a number ends in that measures nothing.
pub(crate) const CODE: &[&str] =
    &["type", "kind", "status", "state", "code", "level", "version", "position", "order", "flags", "year", "month"];
