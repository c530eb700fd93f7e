//! A bounded run of every target, the same in every build: no bytes of anybody end a VM (acceptance J30).

#![cfg(test)]

use std::{collections::BTreeSet, fs, path::Path};

use gatehouse_fuzz::{Bound, TARGETS, run, seeds};

/// Some inputs must be accepted and some refused, else the target sees nothing of what it is for. Of what is signed
/// only the seeds are accepted.
fn check(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let report = run(target, Bound::Rounds(target.rounds), 20_260_101).unwrap();
    assert!((1..report.inputs).contains(&report.accepted), "{name}: {report:?}");
}

macro_rules! targets {
    ($($name:ident)+) => {
        $(mod $name {
            #[test]
            fn j30_no_bytes_break_it() {
                super::check(stringify!($name));
            }
        })+

        #[test]
        fn every_target_is_run_and_has_seeds() {
            let named: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(named, [$(stringify!($name)),+]);
            let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
            let folders = fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().file_name());
            let folders: BTreeSet<_> = folders.map(|name| name.into_string().unwrap()).collect();
            assert_eq!(folders, named.iter().map(|name| (*name).to_owned()).collect());
            for name in named {
                assert!(seeds(name).unwrap().len() >= 4, "{name}");
            }
        }
    };
}

targets! {
    api_key authorization body claims context cookie document export header header_map key_set message path query request schema
    token
}
