//! Signals: SIGTERM and SIGINT stop the server, a second one at once; SIGHUP opens the pairs again. A thread of their own waits for them, so
//! that a server whose other threads are all stuck still ends.

use std::io;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::app::Shared;
use crate::listen::LAST_ANSWERS;

/// Exit status where a stop took longer than it may.
const STUCK: i32 = 1;
/// What a stop may take beside draining and the last answers.
const MARGIN: Duration = Duration::from_secs(5);

/// The thread that waits for signals.
pub(crate) struct Signals {
    stop: Option<oneshot::Receiver<()>>,
    /// The thread ends when this is dropped.
    _running: oneshot::Sender<()>,
}

impl Signals {
    /// Begins to listen.
    pub(crate) fn listen(app: &Shared) -> io::Result<Self> {
        let (tell, stop) = oneshot::channel();
        let (running, mut ended) = oneshot::channel::<()>();
        let (started, is_started) = std::sync::mpsc::channel();
        let (app, workers) = (app.clone(), Handle::current());
        let runtime = Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("xmore-signals".to_owned()).spawn(move || {
            runtime.block_on(async move {
                let mut source = match source::Source::listen() {
                    Ok(source) => source,
                    Err(error) => return drop(started.send(Err(error))),
                };
                let _ = started.send(Ok(()));
                let longest = app.options.limits.drain + LAST_ANSWERS + MARGIN;
                tokio::select! {
                    _ = source.stop(&app, &workers) => {}
                    _ = &mut ended => return,
                }
                // A handle to the server would keep it from being dropped.
                drop(app);
                tracing::info!("stopping: admitted requests are answered");
                let _ = tell.send(());
                tokio::select! {
                    status = source.second() => std::process::exit(status),
                    () = tokio::time::sleep(longest) => {
                        tracing::error!("the server did not stop within {} s", longest.as_secs());
                        std::process::exit(STUCK);
                    }
                    _ = &mut ended => {}
                }
            });
        })?;
        is_started.recv().map_err(io::Error::other)??;
        Ok(Self { stop: Some(stop), _running: running })
    }

    /// Ends with the first signal to stop.
    pub(crate) fn stop(&mut self) -> impl Future<Output = ()> + use<> {
        let stop = self.stop.take();
        async move {
            if let Some(stop) = stop {
                let _ = stop.await;
            }
        }
    }
}

#[cfg(unix)]
mod source {
    //! The system's signals.

    use std::io;

    use tokio::runtime::Handle;
    use tokio::signal::unix::{Signal, SignalKind, signal};

    use crate::app::Shared;

    pub(super) struct Source {
        terminate: Signal,
        interrupt: Signal,
        hangup: Signal,
    }

    impl Source {
        pub(super) fn listen() -> io::Result<Self> {
            Ok(Self {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
                hangup: signal(SignalKind::hangup())?,
            })
        }

        /// Waits for a signal to stop; at each SIGHUP has the server's threads open the pairs again.
        pub(super) async fn stop(&mut self, app: &Shared, workers: &Handle) {
            loop {
                tokio::select! {
                    _ = self.terminate.recv() => return,
                    _ = self.interrupt.recv() => return,
                    _ = self.hangup.recv() => {
                        let app = app.clone();
                        workers.spawn(async move {
                            match app.reload().await {
                                Ok(snapshot) => {
                                    tracing::info!(generation = snapshot.generation, "the memory was opened again")
                                }
                                Err(error) => tracing::error!("the memory served so far is kept: {error}"),
                            }
                        });
                    }
                }
            }
        }

        /// Waits for another signal; the exit status that it means.
        pub(super) async fn second(&mut self) -> i32 {
            let kind = tokio::select! {
                _ = self.terminate.recv() => SignalKind::terminate(),
                _ = self.interrupt.recv() => SignalKind::interrupt(),
            };
            128 + kind.as_raw_value()
        }
    }
}

#[cfg(not(unix))]
mod source {
    //! The same where there is only Ctrl-C.

    use std::io;

    use tokio::runtime::Handle;

    use crate::app::Shared;

    pub(super) struct Source;

    impl Source {
        pub(super) fn listen() -> io::Result<Self> {
            Ok(Self)
        }

        pub(super) async fn stop(&mut self, _: &Shared, _: &Handle) {
            let _ = tokio::signal::ctrl_c().await;
        }

        pub(super) async fn second(&mut self) -> i32 {
            let _ = tokio::signal::ctrl_c().await;
            130
        }
    }
}
