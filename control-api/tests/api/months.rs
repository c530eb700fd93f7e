//! The tables by month have months to write into, for as long as a service runs.

use serde_json::{Value, json};

use crate::{
    database::Database,
    http::send,
    world::{Service, Setup, until},
};

#[test]
fn a_service_makes_the_months_that_are_missing_and_drops_those_whose_time_is_over() {
    let database = Database::migrated();
    let mut setup = Setup::new(&database);
    setup.config["database"]["system"] = json!(database.url("gatehouse_system"));
    setup.bootstrap(&[]);
    let months = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'metering'::regclass";
    // As if no service had run since January 2024.
    database.query(
        "DO $$ DECLARE part regclass; BEGIN
            FOR part IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'metering'::regclass LOOP
                EXECUTE 'DROP TABLE ' || part;
            END LOOP;
            CREATE TABLE metering_p0 PARTITION OF metering FOR VALUES FROM (MINVALUE) TO ('2024-01-01 00:00:00+00');
            ALTER TABLE metering_p0 OWNER TO gatehouse_owner;
        END $$",
    );
    assert_eq!(database.query(months), "1");
    let service = Service::start(&setup);
    // 25 months after its own, this month's own and three ahead.
    until(|| (database.query(months) == "29").then_some(()));
    let ready: Value = send("GET", &format!("{}/readyz", service.admin), &[], None).json();
    assert_eq!(ready["checks"]["months"], "kept", "{ready}");
}
