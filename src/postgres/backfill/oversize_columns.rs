//! Leaves values out of a SELECT that are too large to hold, and says which. Pure.
//!
//! * In: the columns that are read, with their types.
//! * Out: the `SELECT` list, with one column more that names the values left out; and their marks in a row as read.
//! * Never: a value detoasted for its size alone where its stored size can tell; a large value sent by the server.
//!
//! Facts: `octet_length` of text and bytea takes the size from the TOAST pointer. A stored size says little of a
//! compressed value (lz4 packs 255 : 1), so other types are measured as text once they are stored in more than a page.

use crate::model::Cell;
use crate::postgres::catalog::quote;
use crate::postgres::replication::pgoutput::VALUE_MAX;

/// A value that is stored in no more than this is no larger than [`VALUE_MAX`], compressed or not.
const STORED: usize = 16 << 10;

/// The `SELECT` list of these columns of `t`: name and type OID, `None` for one that is to be read as it is (the key:
/// without it a row cannot be told). Returns whether there is a column of marks.
pub(crate) fn list<'a>(columns: impl Iterator<Item = (&'a str, Option<u32>)>) -> (String, bool) {
    let (mut list, mut marks, mut any) = (Vec::new(), Vec::new(), Vec::new());
    for (index, (name, ty)) in columns.enumerate() {
        let name = format!("t.{}", quote::ident(name));
        match ty.and_then(|ty| is_large(&name, ty)) {
            None => list.push(name),
            Some(large) => {
                marks.push(format!("CASE WHEN {large} THEN '{index}' END"));
                list.push(format!("CASE WHEN {large} THEN NULL ELSE {name} END"));
                any.push(format!("({large})"));
            }
        }
    }
    if !marks.is_empty() {
        // Asked for first whether there is any: a list is dear to make, and nearly always empty.
        let marks = format!("pg_catalog.concat_ws(',', {})", marks.join(", "));
        list.push(format!("CASE WHEN {} THEN {marks} ELSE '' END", any.join(" OR ")));
    }
    (list.join(", "), !marks.is_empty())
}

/// The condition under which a value is too large; `None` for types whose values cannot be.
fn is_large(name: &str, ty: u32) -> Option<String> {
    let size = |function: &str, cast: &str| format!("pg_catalog.{function}({name}{cast})");
    match ty {
        // bool, integers, oid, floats, date and time types, uuid, name, numeric (at most 150 kB of digits).
        16 | 19..=21 | 23 | 26 | 700 | 701 | 1082 | 1083 | 1114 | 1184 | 1186 | 1266 | 1700 | 2950 => None,
        // text, bpchar, varchar
        25 | 1042 | 1043 => Some(format!("{} > {VALUE_MAX}", size("octet_length", ""))),
        // bytea: two digits a byte
        17 => Some(format!("{} > {}", size("octet_length", ""), VALUE_MAX / 2)),
        _ => {
            let (stored, text) = (size("pg_column_size", ""), size("octet_length", "::pg_catalog.text"));
            Some(format!(
                "CASE WHEN {stored} > {VALUE_MAX} THEN true WHEN {stored} > {STORED} THEN {text} > {VALUE_MAX} ELSE false END"
            ))
        }
    }
}

/// Takes the column of marks off a row's cells, which begin at `first`, and marks what was left out. The marks' own text
/// stays in the data: a few bytes that nothing points to.
pub(crate) fn mark(data: &[u8], cells: &mut Vec<Cell>, first: usize) {
    let Some(marks) = cells.pop() else { return };
    let row = crate::model::Row { data, cells: &[marks] };
    let crate::model::Value::Text(text) = row.get(0) else { return };
    let indexes: Vec<usize> =
        text.split(|byte| *byte == b',').filter_map(|index| std::str::from_utf8(index).ok()?.parse().ok()).collect();
    for index in indexes {
        if let Some(cell) = cells.get_mut(first + index) {
            *cell = Cell::OVERSIZE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_large_is_guarded() {
        assert_eq!(list([("id", None), ("at", Some(1184))].into_iter()), ("t.\"id\", t.\"at\"".to_owned(), false));
        let (sql, marked) = list([("id", Some(20)), ("t", Some(25)), ("b", Some(17)), ("j", Some(3802))].into_iter());
        assert!(
            marked && sql.starts_with("t.\"id\", CASE WHEN pg_catalog.octet_length(t.\"t\") > 8388608 THEN NULL"),
            "{sql}"
        );
        assert!(
            sql.contains("octet_length(t.\"b\") > 4194304") && sql.contains("octet_length(t.\"j\"::pg_catalog.text)")
        );
        assert!(sql.ends_with("THEN '3' END) ELSE '' END"), "{sql}");
    }

    #[test]
    fn marks_are_taken_off_the_row() {
        let data = b"17,3".to_vec();
        let mut cells = vec![Cell::NULL, Cell::text(0, 2), Cell::NULL, Cell::NULL, Cell::text(1, 3)];
        mark(&data, &mut cells, 1);
        assert_eq!(cells, [Cell::NULL, Cell::text(0, 2), Cell::NULL, Cell::NULL], "7 is no column");
        cells.push(Cell::text(3, 1));
        mark(&data, &mut cells, 0);
        assert_eq!(cells, [Cell::NULL, Cell::text(0, 2), Cell::NULL, Cell::OVERSIZE]);
    }
}
