//! What `install` and `uninstall` are told by their flags, as values. Must not look at the host.

use crate::cli::reader::Given;
use crate::cli::{flags, pages};
use crate::install::order::{Common, Install, Named, Order, Uninstall};

/// What `install` is told.
pub(super) fn installation(given: &Given) -> Order {
    use pages::install::{BIN_DIR, BIRD, CNI_BIN_DIR, CNI_CONF, CNI_CONF_DIR, PLUGIN, PLUGIN_ONLY, RUNTIME};
    let install = Install {
        plugin: given.path(&PLUGIN),
        plugin_only: given.has(&PLUGIN_ONLY),
        cni_conf: given.has(&CNI_CONF),
        bird: given.has(&BIRD),
    };
    let named = Named {
        runtime: given.text(&RUNTIME).and_then(|name| name.parse().ok()),
        bin_dir: given.path(&BIN_DIR),
        cni_bin_dir: given.path(&CNI_BIN_DIR),
        cni_conf_dir: given.path(&CNI_CONF_DIR),
    };
    Order::Install(install, common(given, named))
}

/// What `uninstall` is told.
pub(super) fn removal(given: &Given) -> Order {
    use pages::uninstall::{BIN_DIR, CNI_BIN_DIR, CNI_CONF_DIR, FORCE, PACKAGE, PURGE};
    let named = Named {
        runtime: None,
        bin_dir: given.path(&BIN_DIR),
        cni_bin_dir: given.path(&CNI_BIN_DIR),
        cni_conf_dir: given.path(&CNI_CONF_DIR),
    };
    let uninstall = Uninstall { force: given.has(&FORCE), purge: given.has(&PURGE), by_package: given.has(&PACKAGE) };
    Order::Uninstall(uninstall, common(given, named))
}

fn common(given: &Given, named: Named) -> Common {
    Common { named, root: given.path(&flags::ROOT), dry_run: given.has(&flags::DRY_RUN) }
}
