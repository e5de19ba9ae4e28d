//! `log`: the level while the daemon runs.

use crate::{
    Place,
    support::{config::ONE_PATIENT_TRY, tidegate::Tidegate, upstream::Upstream},
};

#[test]
fn the_logs_level_changes_while_it_runs() {
    let (place, upstream) = (Place::new(), Upstream::answering("10.0.0.1"));
    let config = place.config().upstream("vpc", &[&upstream], ONE_PATIENT_TRY).forward("all", &["."], "vpc", "");
    let tidegate = Tidegate::start(&config);
    assert_eq!(place.says(&["log", "error"]).0, Some(0));
    let lines = tidegate.log().len();
    assert!(place.order(&["drain", "127.0.0.1"]).status.success());
    assert_eq!(place.says(&["log", "info"]).0, Some(0));
    assert!(place.order(&["undrain", "127.0.0.1"]).status.success());
    tidegate.await_logged("INFO", "is back in service");
    assert!(tidegate.logged("INFO", "is drained").is_empty(), "{:?}", &tidegate.log()[lines..]);
    for slip in ["tidegate=loud", "inof", "upstream=debug", "tidegate::upstraem=debug"] {
        let (code, text) = place.says(&["log", slip]);
        assert_eq!(code, Some(2), "{text}");
    }
    assert_eq!(place.says(&["log", "tidegate::engine=debug"]).0, Some(0));
    assert!(place.order(&["drain", "127.0.0.1"]).status.success());
    tidegate.await_logged("INFO", "is drained");

    // A reload that does not change `log.level` keeps the ordered level; one that changes it takes precedence.
    assert_eq!(place.says(&["log", "error"]).0, Some(0));
    assert!(place.order(&["reload"]).status.success());
    assert!(tidegate.logged("INFO", "reloaded").is_empty());
    assert!(tidegate.reload(&config.section("log", "level = \"debug\"")));
    assert!(place.order(&["reload"]).status.success());
    tidegate.await_logged("INFO", "reloaded");
}
