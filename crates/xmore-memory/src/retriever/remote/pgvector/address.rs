//! `postgres://USER:PASSWORD@HOST:PORT/DATABASE/TABLE`: which table of which database.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::super::address::{host_and_port, percent_decode, percent_encode};
use super::super::upload::Target;
use super::super::{NewIndex, RemoteKind, RemotePlace, parse_as};
use super::super::{RemoteOptions, Retriever};
use super::Pgvector;
use crate::error::{MemoryError, Result};
#[cfg(doc)]
use crate::retriever::RemoteError;

/// PostgreSQL's port where none is given.
const PORT: u16 = 5432;
/// PostgreSQL's user where none is given.
const USER: &str = "postgres";
/// Longest name that PostgreSQL keeps, in bytes; longer ones are cut by the server.
const NAME_MAX: usize = 63;

/// pgvector in the table of what pairs may be kept in.
pub(in super::super) const KIND: RemoteKind = RemoteKind {
    schemes: &["postgres", "postgresql"],
    short: "postgres://USER@HOST:PORT/DATABASE/TABLE",
    form: "postgres://USER:PASSWORD@HOST:PORT/DATABASE/TABLE or .../DATABASE/SCHEMA.TABLE, with names of ASCII letters, \
        digits and _ for the schema and the table, % escapes in user, password and database, and nothing after the table",
    takes_uploads: true,
    parse: |_, rest| Some(Arc::new(parse(rest)?)),
};

/// A table of a PostgreSQL database.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PgvectorAddress {
    /// Name or address; an IPv6 address with its brackets.
    pub host: String,
    /// Port of the server, 5432 by default.
    pub port: u16,
    /// User, `postgres` by default.
    pub user: String,
    /// The user's password if the address has one; never shown.
    pub password: Option<String>,
    /// Name of the database.
    pub database: String,
    /// Schema of the table; what the server's search path gives if `None`.
    pub schema: Option<String>,
    /// Name of the table.
    pub table: String,
}

impl PgvectorAddress {
    /// The quoted name of the table, for statements. Names are checked when an address is read, and quoted here all the same.
    pub(super) fn sql_table(&self) -> String {
        use postgres_protocol::escape::escape_identifier;
        let table = escape_identifier(&self.table);
        match &self.schema {
            Some(schema) => format!("{}.{table}", escape_identifier(schema)),
            None => table,
        }
    }

    /// Schema and table, for messages.
    pub(super) fn table_name(&self) -> String {
        self.schema.as_ref().map_or_else(|| self.table.clone(), |schema| format!("{schema}.{}", self.table))
    }
}

impl FromStr for PgvectorAddress {
    type Err = MemoryError;

    /// Reads `postgres://USER:PASSWORD@HOST:PORT/DATABASE/TABLE`.
    ///
    /// # Errors
    /// [`RemoteError::Location`].
    fn from_str(text: &str) -> Result<Self> {
        parse_as(&KIND, text, |_, rest| parse(rest))
    }
}

impl fmt::Display for PgvectorAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (user, database) = (percent_encode(&self.user), percent_encode(&self.database));
        write!(f, "postgres://{user}@{}:{}/{database}/{}", self.host, self.port, self.table_name())
    }
}

impl fmt::Debug for PgvectorAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PgvectorAddress({self})")
    }
}

impl RemotePlace for PgvectorAddress {
    fn open(&self, options: &RemoteOptions) -> Result<Box<dyn Retriever>> {
        Ok(Box::new(Pgvector::open(self, options)?))
    }

    fn create(&self, new: &NewIndex<'_>, options: &RemoteOptions) -> Result<Box<dyn Target>> {
        Ok(Box::new(Pgvector::create(self, new.model, new.pairs, new.kind, options)?))
    }
}

fn parse(rest: &str) -> Option<PgvectorAddress> {
    let (authority, path) = rest.split_once('/')?;
    let (user, password, server) = match authority.rsplit_once('@') {
        None => (USER.to_owned(), None, authority),
        Some((login, server)) => {
            let (user, password) =
                login.split_once(':').map_or((login, None), |(user, password)| (user, Some(password)));
            (name(user)?, password.map(name).map_or(Some(None), |password| password.map(Some))?, server)
        }
    };
    let (host, port) = host_and_port(server)?;
    let (database, table) = path.split_once('/')?;
    let (schema, table) =
        table.split_once('.').map_or((None, table), |(schema, table)| (Some(schema), table));
    let valid = is_identifier(table) && schema.is_none_or(is_identifier);
    Some(PgvectorAddress {
        host,
        port: port.unwrap_or(PORT),
        user,
        password,
        database: name(database)?,
        schema: schema.map(str::to_owned),
        table: valid.then(|| table.to_owned())?,
    })
}

/// A text with its escapes resolved, which the protocol can carry: not empty, without a zero character.
fn name(text: &str) -> Option<String> {
    percent_decode(text).filter(|name| !name.is_empty() && !name.contains('\0'))
}

fn is_identifier(text: &str) -> bool {
    text.len() <= NAME_MAX
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown_without_their_password() {
        for (text, shown) in [
            ("postgres://me:s%40cret@h:1/data/pairs", "postgres://me@h:1/data/pairs"),
            ("postgresql://h/data/pairs", "postgres://postgres@h:5432/data/pairs"),
            ("postgres://a%20b@[::1]:7/d%2Fb/s.t_1", "postgres://a%20b@[::1]:7/d%2Fb/s.t_1"),
        ] {
            let address: PgvectorAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), shown);
            assert!(!format!("{address:?}").contains("cret"));
            assert_eq!(address.password.as_deref(), text.contains("cret").then_some("s@cret"));
            let mut again: PgvectorAddress = shown.parse().unwrap();
            again.password.clone_from(&address.password);
            assert_eq!(again, address);
        }
        let address: PgvectorAddress = "postgres://h/d/S.T".parse().unwrap();
        assert_eq!(address.sql_table(), r#""S"."T""#);
    }

    #[test]
    fn what_is_no_table_is_refused_and_passwords_are_not_shown() {
        let long = format!("postgres://h/d/{}", "t".repeat(NAME_MAX + 1));
        for text in [
            "postgres://",
            "postgres://h",
            "postgres://h/pairs",
            "postgres://h/d/",
            "postgres://h/d/a b",
            "postgres://h/d/a;b",
            "postgres://h/d/a\"b",
            "postgres://h/d/1a",
            "postgres://h/d/a.b.c",
            "postgres://h/d/a?sslmode=require",
            "postgres://h:0/d/a",
            "postgres://:secret@h/d/a",
            "postgres://me:secret@h/d/a b",
            "postgres://me:secret%00@h/d/a",
            "postgres://me:sec/ret@h/d/a",
            "mysql://h/d/a",
            &long,
        ] {
            let message = text.parse::<PgvectorAddress>().unwrap_err().to_string();
            assert!(message.contains("DATABASE/TABLE"), "{text}: {message}");
            assert!(!message.contains("secret") && !message.contains("sec/ret"), "{message}");
        }
    }
}
