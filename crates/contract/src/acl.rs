//! Who may do what in Redis (design §3.3): one user per service, its own key prefixes, its own commands.
//! Nobody has `@admin`, `KEYS`, or another's prefix; there is no default user.
//! Text only: knows neither a server nor a connection.

use std::fmt::Write;

/// A service's rights. Commands that are not named are denied, now and in later versions of Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    /// The user's name.
    pub user: &'static str,
    /// Key patterns, in the form of `ACL SETUSER`.
    pub keys: &'static str,
    /// Commands, in the form of `ACL SETUSER`.
    pub commands: &'static str,
}

/// The sidecar: windows of limits; credentials and the change feed to read.
///
/// It may load functions, because it must do so after a Redis came back empty (`FUNCTION LOAD` is in `@write` and
/// `@scripting`, not in `@admin`). A function runs with the rights of whoever calls it, so that this opens no key
/// and no command to the sidecar that it has not already: what the function of limits runs is therefore listed here.
/// It may not delete or list functions, nor run `EVAL`. Of a cluster it may ask who keeps which slots.
pub const SIDECAR: Service = Service {
    user: "sidecar",
    keys: "~rl:* %R~cred:* %R~feed:*",
    commands: "+ping +fcall +function|load +cluster|slots +asking +time +get +getrange +set +setrange +mget +pexpire +multi \
               +exec +xrange +xrevrange +zadd +zcard +zrange +zrem +zremrangebyrank +zremrangebyscore +zscore",
};

/// The control API: credentials, the change feed, which each of its processes also reads, and caches; running logs to read,
/// and to take away with their tenant.
pub const CONTROL: Service = Service {
    user: "control",
    keys: "~cred:* ~feed:* ~cache:* %RW~log:*",
    commands: "+ping +time +watch +unwatch +multi +exec +get +mget +set +del +expire +xadd +xrange +xrevrange +zadd +zrange \
               +zremrangebyscore",
};

/// The execution worker: the queue's streams, and what is logged by what it runs.
pub const WORKER: Service = Service {
    user: "worker",
    keys: "~queue:* ~log:*",
    commands: "+ping +multi +exec +xadd +xack +xdel +xlen +xreadgroup +xautoclaim +xgroup|create +expire +zadd \
               +zremrangebyscore",
};

/// Every service's user.
pub const SERVICES: &[Service] = &[SIDECAR, CONTROL, WORKER];

/// The user for operators and tests; no service runs as it.
pub const ADMIN: &str = "admin";

/// The users' passwords. Each is 1 to 128 letters, digits, `-` or `_`, since an ACL file has no quoting.
#[derive(Clone, Copy)]
pub struct Passwords<'a> {
    /// Of [`ADMIN`].
    pub admin: &'a str,
    /// Of [`SIDECAR`].
    pub sidecar: &'a str,
    /// Of [`CONTROL`].
    pub control: &'a str,
    /// Of [`WORKER`].
    pub worker: &'a str,
}

/// A password is empty, too long, or has a character that an ACL file cannot carry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the password of {0} is not 1 to 128 letters, digits, hyphens or underscores")]
pub struct BadPassword(&'static str);

/// The rules of one service after `ACL SETUSER <user>`, beginning with `reset`.
///
/// # Errors
/// [`BadPassword`].
pub fn rules(service: &Service, password: &str) -> Result<String, BadPassword> {
    let password = checked(service.user, password)?;
    Ok(format!("reset on >{password} {} {}", service.keys, service.commands))
}

/// A whole ACL file, for `aclfile` in the server's configuration or as `user` lines within it.
///
/// # Errors
/// [`BadPassword`].
pub fn file(passwords: &Passwords<'_>) -> Result<String, BadPassword> {
    let mut text = "user default reset off\n".to_owned();
    let admin = checked(ADMIN, passwords.admin)?;
    // Writing into a String cannot fail.
    writeln!(text, "user {ADMIN} reset on >{admin} ~* &* +@all").unwrap_or_default();
    for (service, password) in
        [(&SIDECAR, passwords.sidecar), (&CONTROL, passwords.control), (&WORKER, passwords.worker)]
    {
        writeln!(text, "user {} {}", service.user, rules(service, password)?).unwrap_or_default();
    }
    Ok(text)
}

fn checked<'a>(user: &'static str, password: &'a str) -> Result<&'a str, BadPassword> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if (1..=128).contains(&password.len()) && password.bytes().all(plain) {
        Ok(password)
    } else {
        Err(BadPassword(user))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_a_line_per_user() {
        let passwords = Passwords { admin: "a", sidecar: "s", control: "c", worker: "w" };
        assert_eq!(
            file(&passwords).unwrap(),
            "user default reset off\n\
             user admin reset on >a ~* &* +@all\n\
             user sidecar reset on >s ~rl:* %R~cred:* %R~feed:* +ping +fcall +function|load +cluster|slots +asking +time +get +getrange +set +setrange +mget +pexpire +multi +exec +xrange +xrevrange +zadd +zcard +zrange +zrem +zremrangebyrank +zremrangebyscore +zscore\n\
             user control reset on >c ~cred:* ~feed:* ~cache:* %RW~log:* +ping +time +watch +unwatch +multi +exec +get +mget +set +del +expire +xadd +xrange +xrevrange +zadd +zrange +zremrangebyscore\n\
             user worker reset on >w ~queue:* ~log:* +ping +multi +exec +xadd +xack +xdel +xlen +xreadgroup +xautoclaim +xgroup|create +expire +zadd +zremrangebyscore\n"
        );
    }

    #[test]
    fn no_service_has_a_category_or_a_foreign_prefix() {
        for service in SERVICES {
            assert!(!service.commands.contains('@'), "{}", service.user);
            for other in SERVICES.iter().filter(|other| other.user != service.user) {
                for key in service.keys.split(' ').filter(|key| key.starts_with('~')) {
                    assert!(!other.keys.split(' ').any(|k| k == key), "{} {key}", service.user);
                }
            }
        }
    }

    #[test]
    fn a_password_cannot_carry_a_rule() {
        for bad in ["", "a b", "a\nuser x on nopass +@all ~*", "ä", &"x".repeat(129)] {
            assert_eq!(rules(&WORKER, bad), Err(BadPassword("worker")), "{bad:?}");
        }
    }
}
