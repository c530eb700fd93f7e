//! What every service needs around axum: problems, listeners, logs, shutdown.
