//! SIGTERM and SIGINT stop, a second one at once; SIGHUP opens the pairs again.

use std::io;

use crate::app::Shared;

/// Exit status of a program that SIGINT ended.
const INTERRUPTED: i32 = 130;

/// Begins to listen; the future ends with the first signal to stop.
#[cfg(unix)]
pub(crate) fn listen(app: Shared) -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            match app.reload().await {
                Ok(snapshot) => {
                    tracing::info!(generation = snapshot.generation, "the memory was opened again")
                }
                Err(error) => tracing::error!("the memory served so far is kept: {error}"),
            }
        }
    });
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: what was taken is answered");
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            std::process::exit(INTERRUPTED);
        });
    })
}

/// The same where there is only Ctrl-C.
#[cfg(not(unix))]
pub(crate) fn listen(_: Shared) -> io::Result<impl Future<Output = ()>> {
    Ok(async move {
        let _ = tokio::signal::ctrl_c().await;
        tokio::spawn(async move {
            let _ = tokio::signal::ctrl_c().await;
            std::process::exit(INTERRUPTED);
        });
    })
}
