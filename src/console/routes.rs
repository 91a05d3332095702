//! The table of routes: each address, its method and the role it needs. The router and the guard both read it.
//!
//! * In: nothing.
//! * Out: [`ConsoleRoute`]s. One without a line here, or without a handler in `pages`, does not compile.
//! * Never: a change by GET; an address that two routes share.

use axum::http::Method;

use crate::config::Role;

/// What a route demands of the person who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Nothing: the login and the page's files are open to anybody.
    Anybody,
    /// A session or a token of at least this role.
    Of(Role),
}

macro_rules! routes {
    ($( $route:ident = $method:ident $path:literal $access:ident, )+) => {
        /// A route.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum ConsoleRoute { $( $route, )+ }

        impl ConsoleRoute {
            /// All routes.
            pub(crate) const ALL: &[ConsoleRoute] = &[ $( ConsoleRoute::$route, )+ ];

            /// Returns the one method of the route. A route of GET also answers HEAD.
            pub(crate) fn method(self) -> Method {
                match self { $( ConsoleRoute::$route => Method::$method, )+ }
            }

            pub(crate) fn path(self) -> &'static str {
                match self { $( ConsoleRoute::$route => $path, )+ }
            }

            pub(crate) fn access(self) -> Access {
                match self { $( ConsoleRoute::$route => $access, )+ }
            }
        }
    };
}

const ANYBODY: Access = Access::Anybody;
const VIEWER: Access = Access::Of(Role::Viewer);
const OPERATOR: Access = Access::Of(Role::Operator);

routes! {
    Asset = GET "/assets/{build}/{name}" ANYBODY,
    LoginPage = GET "/login" ANYBODY,
    Login = POST "/session" ANYBODY,
    Logout = POST "/session/end" VIEWER,
    Overview = GET "/" VIEWER,
    Section = GET "/sections/{name}" VIEWER,
    Logs = GET "/logs" VIEWER,
    Checks = GET "/checks" VIEWER,
    LookAgain = POST "/checks" OPERATOR,
    Pause = POST "/sections/{name}/pause" OPERATOR,
    Resume = POST "/sections/{name}/resume" OPERATOR,
    Probe = POST "/sections/{name}/probe" OPERATOR,
    Audit = POST "/sections/{name}/audit" OPERATOR,
    Resync = GET "/sections/{name}/resync" OPERATOR,
    PlanResync = POST "/sections/{name}/resync" OPERATOR,
    Quarantine = GET "/quarantine" VIEWER,
    PlanRetry = POST "/quarantine/retry" OPERATOR,
    PlanDrop = POST "/quarantine/drop" OPERATOR,
    Repair = GET "/repair" VIEWER,
    Mapping = GET "/sections/{name}/mapping" OPERATOR,
    NewSection = GET "/mapping" OPERATOR,
    Draft = POST "/mapping" OPERATOR,
    Config = GET "/config" VIEWER,
    Review = POST "/config/plan" OPERATOR,
    Setup = GET "/setup" OPERATOR,
    SetupConnect = POST "/setup/connect" OPERATOR,
    SetupTables = POST "/setup/tables" OPERATOR,
    SetupPrepare = POST "/setup/prepare" OPERATOR,
    SetupRun = POST "/setup/run" OPERATOR,
    SetupDemo = POST "/setup/demo" OPERATOR,
    RunHere = POST "/run" OPERATOR,
    Trace = GET "/trace" VIEWER,
    Sql = GET "/sql" OPERATOR,
    Query = POST "/sql" OPERATOR,
    Plan = GET "/plans/{id}" OPERATOR,
    CarryOut = POST "/plans" OPERATOR,
    Live = GET "/live" VIEWER,
}

impl ConsoleRoute {
    /// Returns whether the route exists while the wizard makes the first configuration.
    pub(crate) fn is_of_set_up(self) -> bool {
        use ConsoleRoute as Of;
        let wizard = [Of::Setup, Of::SetupConnect, Of::SetupTables, Of::SetupPrepare, Of::SetupRun, Of::SetupDemo];
        let mapping = [Of::Mapping, Of::Draft, Of::Review];
        self.access() == Access::Anybody || self == Of::Logout || wizard.contains(&self) || mapping.contains(&self)
    }

    /// Returns whether the answer continues for as long as the client listens.
    pub(crate) fn is_stream(self) -> bool {
        self == ConsoleRoute::Live
    }
}

/// Returns the table as words: method, path, and who may ask.
pub(crate) fn table() -> Vec<(String, &'static str, &'static str)> {
    let word = |route: ConsoleRoute| match route.access() {
        Access::Anybody => "anybody",
        Access::Of(role) => role.as_str(),
    };
    ConsoleRoute::ALL.iter().map(|route| (route.method().to_string(), route.path(), word(*route))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_something_needs_an_operator_and_is_no_get() {
        for route in ConsoleRoute::ALL {
            let session = matches!(route, ConsoleRoute::Login | ConsoleRoute::Logout);
            let changes = route.method() != Method::GET;
            assert_eq!(changes && !session, route.access() == OPERATOR && changes, "{route:?}");
        }
    }

    #[test]
    fn only_the_login_and_the_files_are_open() {
        let open: Vec<&ConsoleRoute> = ConsoleRoute::ALL.iter().filter(|route| route.access() == ANYBODY).collect();
        assert_eq!(open, [&ConsoleRoute::Asset, &ConsoleRoute::LoginPage, &ConsoleRoute::Login]);
    }
}
