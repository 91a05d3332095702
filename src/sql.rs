//! A statement in one round trip: its parameters' types are said with it, so that the server is not asked for them first.
//!
//! * In: a client, SQL, and parameters of the types that are named here.
//! * Out: rows, or how many rows changed.
//! * Never: a statement that is prepared (two round trips); a type that the server would have to look up.

use std::borrow::Cow;

use tokio_postgres::types::{PgLsn, ToSql, Type};
use tokio_postgres::{Client, Error, Row};

/// A Rust type that is always sent as one PostgreSQL type.
pub(crate) trait SqlType {
    const TYPE: Type;
    const ARRAY: Type;
    /// An array of those: of the same type, but for bytes, whose array is `bytea`.
    const ARRAYS: Type = Self::ARRAY;
}

macro_rules! sql_type {
    ($($rust:ty => $one:ident, $many:ident;)*) => {
        $(impl SqlType for $rust {
            const TYPE: Type = Type::$one;
            const ARRAY: Type = Type::$many;
        })*
    };
}

sql_type! {
    str => TEXT, TEXT_ARRAY;
    String => TEXT, TEXT_ARRAY;
    Cow<'_, str> => TEXT, TEXT_ARRAY;
    bool => BOOL, BOOL_ARRAY;
    i32 => INT4, INT4_ARRAY;
    i64 => INT8, INT8_ARRAY;
    u32 => OID, OID_ARRAY;
    f64 => FLOAT8, FLOAT8_ARRAY;
    PgLsn => PG_LSN, PG_LSN_ARRAY;
}

impl SqlType for u8 {
    const TYPE: Type = Type::CHAR;
    const ARRAY: Type = Type::BYTEA;
    const ARRAYS: Type = Type::BYTEA_ARRAY;
}

impl<T: SqlType + ?Sized> SqlType for &T {
    const TYPE: Type = T::TYPE;
    const ARRAY: Type = T::ARRAY;
    const ARRAYS: Type = T::ARRAYS;
}

impl<T: SqlType> SqlType for Option<T> {
    const TYPE: Type = T::TYPE;
    const ARRAY: Type = T::ARRAY;
    const ARRAYS: Type = T::ARRAYS;
}

impl<T: SqlType> SqlType for [T] {
    const TYPE: Type = T::ARRAY;
    const ARRAY: Type = T::ARRAYS;
    const ARRAYS: Type = T::ARRAYS;
}

impl<T: SqlType, const N: usize> SqlType for [T; N] {
    const TYPE: Type = T::ARRAY;
    const ARRAY: Type = T::ARRAYS;
    const ARRAYS: Type = T::ARRAYS;
}

impl<T: SqlType> SqlType for Vec<T> {
    const TYPE: Type = T::ARRAY;
    const ARRAY: Type = T::ARRAYS;
    const ARRAYS: Type = T::ARRAYS;
}

/// A parameter that knows its type.
pub(crate) trait SqlParam: ToSql + Sync {
    fn sql_type(&self) -> Type;
}

impl<T: SqlType + ToSql + Sync> SqlParam for T {
    fn sql_type(&self) -> Type {
        T::TYPE
    }
}

/// Parameters of one statement.
pub(crate) type SqlParams<'a> = &'a [&'a dyn SqlParam];

fn typed<'a>(params: SqlParams<'a>) -> Vec<(&'a (dyn ToSql + Sync), Type)> {
    params.iter().map(|param| (*param as &(dyn ToSql + Sync), param.sql_type())).collect()
}

/// The rows of `sql`.
pub(crate) async fn query(client: &Client, sql: &str, params: SqlParams<'_>) -> Result<Vec<Row>, Error> {
    client.query_typed(sql, &typed(params)).await
}

/// The one row of `sql`.
pub(crate) async fn query_one(client: &Client, sql: &str, params: SqlParams<'_>) -> Result<Row, Error> {
    client.query_typed_one(sql, &typed(params)).await
}

/// The row of `sql`, where there is one.
pub(crate) async fn query_opt(client: &Client, sql: &str, params: SqlParams<'_>) -> Result<Option<Row>, Error> {
    client.query_typed_opt(sql, &typed(params)).await
}

/// How many rows `sql` changed.
pub(crate) async fn execute(client: &Client, sql: &str, params: SqlParams<'_>) -> Result<u64, Error> {
    client.execute_typed(sql, &typed(params)).await
}
