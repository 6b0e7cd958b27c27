//! The statements, one a file, with the schema's name in its place.

use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

/// What stands in the files for the schema.
const PLACEHOLDER: &str = "\"sillage\".";

macro_rules! statements {
    ($($name:ident,)+) => {
        /// The statements of one schema.
        pub(crate) struct Sql {
            $(pub(crate) $name: SqlStr,)+
            /// As `lock`, but waits for rows that others hold.
            pub(crate) lock_waiting: SqlStr,
        }

        impl Sql {
            /// For a schema whose name was checked.
            pub(crate) fn new(schema: &str) -> Sql {
                let lock = include_str!("sql/lock.sql").replace(" SKIP LOCKED", "");
                Sql {
                    $($name: in_schema(include_str!(concat!("sql/", stringify!($name), ".sql")), schema),)+
                    lock_waiting: in_schema(&lock, schema),
                }
            }

            /// All of them, by name.
            #[cfg(test)]
            fn all(&self) -> Vec<(&'static str, &SqlStr)> {
                vec![$((stringify!($name), &self.$name),)+ ("lock_waiting", &self.lock_waiting)]
            }
        }
    };
}

statements! {
    ahead, append, append_one, claim, common, decisions, documents, documents_by_id, documents_by_sort, documents_due,
    forget, holding, known, lease_make, lease_renew, lease_take, lock, log, log_correlation, log_end, log_stream, meta,
    notify, now, oids, origin, own, renew, restore, rewritten, rights, seen, sequence, server, set_meta, stable,
    stream, trim, trim_stream, write,
}

/// The statement for that schema, whose name was checked: lower-case letters, digits, underscores.
pub(crate) fn in_schema(statement: &str, schema: &str) -> SqlStr {
    AssertSqlSafe(statement.replace(PLACEHOLDER, &format!("\"{schema}\"."))).into_sql_str()
}

#[cfg(test)]
mod tests;
