//! T12: one request sees one configuration, also while another one is loaded.

use std::{path::PathBuf, time::Duration};

use gatehouse_tests::{envoy, http::Connection, wait};
use serde_json::{Value, json};

use super::gate::{ALLOWED, Gate, Plan, get, issuer, token, verdict};

/// Where the listener on this port is written; Envoy watches the folder.
fn folder(port: u64) -> PathBuf {
    std::env::temp_dir().join(format!("gatehouse-listener-{port}"))
}

/// Puts the file there whole, as a rename does.
fn publish(folder: &std::path::Path, listener: &Value) -> Option<()> {
    let mut resource = listener.clone();
    let kind = "type.googleapis.com/envoy.config.listener.v3.Listener";
    resource.as_object_mut()?.insert("@type".to_owned(), json!(kind));
    let new = folder.join("new.json");
    std::fs::write(&new, json!({"resources": [resource]}).to_string()).ok()?;
    std::fs::rename(new, folder.join("listeners.json")).ok()
}

/// The listener comes from a file.
fn from_file(bootstrap: &mut Value) -> Option<()> {
    let listener = bootstrap.pointer_mut("/static_resources/listeners/0")?.take();
    *bootstrap.pointer_mut("/static_resources/listeners")? = json!([]);
    let port = listener.pointer("/address/socket_address/port_value")?.as_u64()?;
    let folder = folder(port);
    std::fs::create_dir_all(&folder).ok()?;
    publish(&folder, &listener)?;
    std::fs::write(folder.join("first.json"), listener.to_string()).ok()?;
    let source = json!({
        "path": folder.join("listeners.json"),
        "watched_directory": {"path": folder},
    });
    bootstrap.as_object_mut()?.insert(
        "dynamic_resources".to_owned(),
        json!({"lds_config": {"path_config_source": source}}),
    );
    Some(())
}

#[test]
fn t12_a_request_ends_under_the_configuration_that_it_began_under() {
    let gate = Gate::with(Plan { bootstrap: Box::new(from_file), ..Plan::default() });
    let folder = folder(gate.envoy.listen.port().into());
    gate.allows(&get().bearer(&token()));

    // The record is silent, so that this request waits within the filter.
    let record = gate.outside();
    let mut waiting = Connection::open(gate.envoy.listen).unwrap();
    let fresh = super::gate::with_claim("jti", json!("another"));
    waiting.send(&get().bearer(&fresh).bytes()).unwrap();

    // The next configuration wants another audience.
    let first = std::fs::read_to_string(folder.join("first.json")).unwrap();
    let mut listener: Value = serde_json::from_str(&first).unwrap();
    let mut bootstrap = json!({"static_resources": {"listeners": [listener.take()]}});
    let filters = envoy::manager(&mut bootstrap).unwrap().get_mut("http_filters").unwrap();
    let next = issuer(&json!({"audiences": ["https://next.greenlang.local"]}));
    *filters.pointer_mut("/0/typed_config/config/configuration/value").unwrap() =
        json!(next.to_string());
    let listener = bootstrap.pointer("/static_resources/listeners/0").unwrap();
    publish(&folder, listener).unwrap();
    wait::until("the next configuration serves", Duration::from_secs(30), || {
        let mut connection = Connection::open(gate.envoy.listen)?;
        connection.send(&get().bearer("x.y.z").bytes())?;
        connection.response()?;
        let updates = gate.envoy.stat("listener_manager.listener_modified")?;
        let warming = gate.envoy.stat("listener_manager.total_listeners_warming")?;
        Ok((updates == 1 && warming == 0).then_some(()))
    })
    .unwrap();
    let mut connection = Connection::open(gate.envoy.listen).unwrap();
    connection.send(&get().bearer(&fresh).bytes()).unwrap();
    assert_eq!(verdict(&connection.response().unwrap()), "401 token_invalid");

    // Now the record speaks: what began under the first configuration ends under it.
    drop(record);
    let answer = waiting.response().unwrap();
    assert_eq!(verdict(&answer), ALLOWED, "{answer:?}");
    assert_eq!(answer.headers.all("api-version"), ["v1"]);
    let next_token = super::gate::with_claim("aud", json!("https://next.greenlang.local"));
    gate.allows(&get().bearer(&next_token));
    gate.denies(&get().bearer(&fresh), "401 token_invalid");
    std::fs::remove_dir_all(folder).unwrap();
}
