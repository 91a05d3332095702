//! A key's columns in SQL: compared as a row, in the server's order, by names that nothing can hide.
//!
//! * In: a table, read as `t`, and the columns of a section's key.
//! * Out: conditions, orders and printed forms.
//! * Never: an unqualified name; an order by an output column; a cast to text where the output function is meant, for
//!   they differ (`char(n)`, `boolean`).

use tokio_postgres::{Client, Error};

use crate::model::{Key, parts};
use crate::postgres::catalog::quote;
use crate::postgres::catalog::table::TableInfo;
use crate::sql;

/// The columns of a key.
#[derive(Clone, Debug)]
pub(crate) struct KeyColumns {
    /// `t."name"` of each.
    names: Vec<String>,
    /// The type of each, without its length.
    types: Vec<String>,
}

impl KeyColumns {
    /// These columns of a table.
    pub(crate) fn new(table: &TableInfo, key: &[String]) -> KeyColumns {
        let base = |name: &String| table.column(name).map_or("text", |column| &column.base_type).to_owned();
        KeyColumns {
            names: key.iter().map(|name| format!("t.{}", quote::ident(name))).collect(),
            types: key.iter().map(base).collect(),
        }
    }

    /// How many there are.
    pub(crate) fn width(&self) -> usize {
        self.names.len()
    }

    /// `t."a", t."b"`.
    pub(crate) fn list(&self) -> String {
        self.names.join(", ")
    }

    /// `(t."a", t."b") > ('1', '2')`: PostgreSQL reads the literals in the columns' types.
    pub(crate) fn compared(&self, operator: &str, key: &Key) -> String {
        format!("{} {operator} {}", row(&self.names), self.literals(key.as_str()))
    }

    /// `(t."a", t."b") IN (…)`.
    pub(crate) fn one_of<'a>(&self, keys: impl Iterator<Item = &'a str>) -> String {
        let keys: Vec<String> = keys.map(|key| self.literals(key)).collect();
        format!("{} IN ({})", row(&self.names), keys.join(", "))
    }

    /// A key's text as literals. One of another width is given as it is, so that the server refuses it.
    fn literals(&self, text: &str) -> String {
        let parts = parts(text, self.width()).unwrap_or_else(|| vec![text.to_owned()]);
        row(&parts.iter().map(|part| quote::literal(part)).collect::<Vec<_>>())
    }

    /// `t."a", t."b"`, each with the word behind it: `ASC` or `DESC`.
    pub(crate) fn ordered(&self, word: &str) -> String {
        self.names.iter().map(|name| format!("{name} {word}")).collect::<Vec<_>>().join(", ")
    }

    /// That none is NULL.
    pub(crate) fn not_null(&self) -> String {
        self.names.iter().map(|name| format!("{name} IS NOT NULL")).collect::<Vec<_>>().join(" AND ")
    }

    /// An array of the texts of a row's key, as its output functions print them.
    pub(crate) fn printed(&self) -> String {
        array(self.names.iter().map(|name| format!("pg_catalog.format('%s', {name})")))
    }

    /// The same, as their output functions would print it if the columns had these types.
    pub(crate) fn printed_as(&self, types: &[String]) -> String {
        let typed = self.names.iter().zip(types);
        array(typed.map(|(name, ty)| format!("pg_catalog.format('%s', CAST({name} AS {ty}))")))
    }

    /// [`KeyColumns::printed`] of the one row that this orders first: ordered in a query of its own, by the columns themselves.
    pub(crate) fn printed_of_first(&self, from: &str, condition: &str, word: &str) -> String {
        let named = self.names.iter().enumerate().map(|(index, name)| format!("{name} AS k{index}"));
        let printed = array((0..self.width()).map(|index| format!("pg_catalog.format('%s', one.k{index})")));
        format!(
            "SELECT {printed} FROM (SELECT {} FROM {from} WHERE {condition} ORDER BY {} LIMIT 1) AS one",
            named.collect::<Vec<_>>().join(", "),
            self.ordered(word)
        )
    }

    /// A key as a person writes it, as the server prints it in the columns' types; `None` where it has not as many columns.
    ///
    /// # Errors
    /// Where it is no value of the types.
    pub(crate) async fn canonical(&self, client: &Client, text: &str) -> Result<Option<Key>, Error> {
        let Some(parts) = parts(text, self.width()) else { return Ok(None) };
        let typed = parts.iter().zip(&self.types);
        let printed = array(typed.map(|(text, ty)| format!("pg_catalog.format('%s', {}::{ty})", quote::literal(text))));
        let row = sql::query_one(client, &format!("SELECT {printed}"), &[]).await?;
        Ok(Some(Key::of_parts(&row.get::<_, Vec<String>>(0))))
    }
}

fn array(items: impl Iterator<Item = String>) -> String {
    format!("ARRAY[{}]::text[]", items.collect::<Vec<_>>().join(", "))
}

/// One alone stands without parentheses.
fn row(items: &[String]) -> String {
    if let [only] = items { only.clone() } else { format!("({})", items.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_columns_are_compared_as_a_row_and_one_alone() {
        let columns = |names: &[&str]| KeyColumns {
            names: names.iter().map(|name| format!("t.{}", quote::ident(name))).collect(),
            types: names.iter().map(|_| "bigint".to_owned()).collect(),
        };
        let one = columns(&["first"]);
        assert_eq!(one.compared(">", &Key::new("it's")), r#"t."first" > 'it''s'"#);
        assert_eq!(one.one_of(["1", "2"].into_iter()), r#"t."first" IN ('1', '2')"#);
        let two = columns(&["a", "b"]);
        assert_eq!(two.compared("<=", &Key::of_parts(&["1", "x,y"])), r#"(t."a", t."b") <= ('1', 'x,y')"#);
        assert_eq!(two.compared(">", &Key::new("1")), r#"(t."a", t."b") > '1'"#, "for the server to refuse");
        assert_eq!(two.ordered("DESC"), r#"t."a" DESC, t."b" DESC"#);
    }
}
