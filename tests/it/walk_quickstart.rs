//! The walk by the quick start, with the program as it is built for tests. `tests/dist` walks with what is released.

use crate::walk_scene::walk;

#[tokio::test]
async fn walk_from_an_empty_database_to_flowing_rows_by_the_quick_start_needs_psql() {
    walk(env!("CARGO_BIN_EXE_pg2planhat").as_ref()).await;
}
