//! What an earlier start of this worker left, for example after SIGKILL: processes, control groups, runsc's memory,
//! bundles and their mounts. Only what lies in this worker's own folder and groups.

use std::fs;

use tracing::warn;

use super::{DEATH, Error, Sandboxes, bundle, io_error};

/// What was found and removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Control groups, with every process in them killed.
    pub groups: usize,
    /// Sandboxes that runsc remembered.
    pub remembered: usize,
    /// Bundles.
    pub bundles: usize,
}

impl Sandboxes {
    /// Removes all leftovers. Call it before the first run: it takes running sandboxes for leftovers.
    pub async fn sweep(&self) -> Result<Swept, Error> {
        let mut swept = Swept::default();
        // Processes first: what holds a mount or a bundle must be dead.
        for name in self.groups.left()? {
            let group = self.groups.group(&name);
            group.kill(DEATH).await?;
            if let Ok(id) = name.parse() {
                let failed = || io_error(format!("keeping what {name} used"));
                self.left.keep(id, &group.usage()).map_err(failed())?;
            }
            group.remove(DEATH).await?;
            swept.groups += 1;
        }
        for id in self.engine.remembered() {
            self.engine.forget(&id);
            swept.remembered += 1;
        }
        let failed = || io_error(format!("listing {}", self.bundles.display()));
        for entry in fs::read_dir(&self.bundles).map_err(failed())? {
            bundle::remove(&entry.map_err(failed())?.path())?;
            swept.bundles += 1;
        }
        if swept != Swept::default() {
            warn!(
                groups = swept.groups,
                remembered = swept.remembered,
                bundles = swept.bundles,
                "removed what an earlier start of this worker left"
            );
        }
        Ok(swept)
    }
}
