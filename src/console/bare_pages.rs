//! Pages without the menu: the login, and refusals.

use askama::Template;

use crate::console::draw;
use crate::console::static_files::build;

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage<'a> {
    title: &'a str,
    theme: &'a str,
    build: &'static str,
    wrong: &'a str,
    next: &'a str,
}

/// Returns the login page. After the login the browser goes to `next`.
pub(crate) fn login(theme: &str, wrong: &str, next: &str) -> String {
    let page = LoginPage { title: "Log in", theme, build: build(), wrong, next };
    page.render().unwrap_or_default()
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage<'a> {
    title: &'a str,
    theme: &'a str,
    build: &'static str,
    what: &'a str,
    remedy: &'a str,
    status: u16,
}

/// Returns the page of a refusal: what happened, and what to do.
pub(crate) fn error(theme: &str, title: &str, what: &str, remedy: &str, status: u16) -> String {
    let page = ErrorPage { title, theme, build: build(), what, remedy, status };
    page.render().unwrap_or_default()
}
