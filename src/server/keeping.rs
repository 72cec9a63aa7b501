//! What is written to disk while the process runs, for the case of a crash. On threads of its own: disks may be slow.

use std::time::Duration;

use crate::gateway::Handle;

/// Writes what is stored, as often as the settings say.
pub(super) async fn answers(handle: Handle) {
    let Some(every) = handle.saves_every() else { return };
    loop {
        tokio::time::sleep(every).await;
        let handle = handle.clone();
        let _ = tokio::task::spawn_blocking(move || handle.save(false)).await;
    }
}

/// Writes what was used of quotas.
pub(super) async fn state(handle: Handle) {
    while handle.keeps_state() {
        tokio::time::sleep(STATE_PAUSE).await;
        let handle = handle.clone();
        let _ = tokio::task::spawn_blocking(move || handle.save_state()).await;
    }
}

/// What a crash may forget of quotas; so much more than their limit a consumer may then get.
const STATE_PAUSE: Duration = Duration::from_secs(3);
