//! `ebb top`: one or several sidecars in a terminal, second by second.
//!
//! ```text
//!  follow ── a task a sidecar: connects, listens, tries again ──► Sidecar (what is known of it)
//!  keys, resizes ───────────────────────────────────────────────► App ──► draw (pure)
//! ```

mod draw;
mod follow;

use clap::Args;
use crossterm::event::{Event, EventStream, KeyCode, KeyEventKind, KeyModifiers};
use ebb_config::units::Span;
use ebb_proto::client::Address;
use ebb_terminal::{Failure, Outcome};
use follow::Sidecar;
use futures::StreamExt as _;
use ratatui::layout::Rect;
use std::io::IsTerminal as _;
use std::time::Duration;
use strum::{EnumCount, IntoStaticStr, VariantArray};

/// Watch sidecars in a terminal.
#[derive(Args, Debug)]
#[command(after_help = "\
A dot on the memory chart marks a run of the cleaner, at the resident memory after the run.
The receipts list each run with its reason and what it moved and freed. The curves of hit
ratio and latency have gaps while there are no requests. On a small terminal, tab switches
between receipts, findings, segments, curves and configuration. On a large one, it switches
between the configuration and all others. The configuration lists each setting with its
value and source; settings that are not defaults come first.

Keys:
  up, down (k, j)          select a sidecar
  left, right (h, l)       select a receipt
  tab                      show the next part
  page up, down (u, d)     scroll the configuration
  q                        quit

Examples:
  ebb top
  ebb top --admin-addr 127.0.0.1:7071 --admin-addr unix:/run/ebb/admin.sock
  kubectl port-forward pod/shop-0 7071 & ebb top")]
pub(crate) struct TopArgs {
    /// Address of the admin listener: HOST:PORT or unix:/path; may be repeated.
    #[arg(long, env = "EBB_ADMIN_ADDR", value_name = "ADDR", value_delimiter = ',', default_value = "127.0.0.1:7071")]
    admin_addr: Vec<Address>,
    /// Interval between readings, at least 100ms.
    #[arg(long, value_name = "INTERVAL", default_value = "1s")]
    every: Span,
}

/// What is on the screen.
#[derive(Debug)]
struct App {
    sidecars: Vec<Sidecar>,
    chosen: usize,
    /// What is shown of the chosen one where there is no room for everything.
    part: Part,
    /// How many lines of the configuration are scrolled away.
    scrolled: usize,
    /// Where all of it was drawn last.
    area: Rect,
}

/// A part of what is known of a sidecar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumCount, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
enum Part {
    /// What the cleaner's runs did.
    #[default]
    Receipts,
    /// What the doctor finds.
    Findings,
    /// How full the segments are.
    Segments,
    /// The hit ratio and latency over time.
    Curves,
    /// Every setting, and where its value comes from.
    Configuration,
}

impl Part {
    fn name(self) -> &'static str {
        self.into()
    }
}

/// Shows the sidecars until somebody leaves.
pub(super) async fn run(args: TopArgs) -> Outcome {
    if args.every.0 < 100 {
        return Err(Failure::Usage("--every must be at least 100ms".into()));
    }
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(
            "ebb top needs a terminal; use `ebb stats --watch --output json` without one".into(),
        ));
    }
    let (said, mut news) = tokio::sync::mpsc::channel(64);
    for (number, address) in args.admin_addr.iter().enumerate() {
        tokio::spawn(follow::follow(number, address.clone(), args.every.0, said.clone()));
    }
    let sidecars = args.admin_addr.into_iter().map(Sidecar::new).collect();
    let mut app = App::new(sidecars);
    let mut terminal = ratatui::try_init()?;
    let mut events = EventStream::new();
    // Redrawn at least this often: what is known of a sidecar that is silent grows old.
    let mut ticks = tokio::time::interval(Duration::from_millis(500));
    let result = loop {
        match terminal.draw(|frame| draw::draw(frame, &app)) {
            Ok(drawn) => app.area = drawn.area,
            Err(error) => break Err(error.into()),
        }
        tokio::select! {
            Some((number, news)) = news.recv() => app.sidecars[number].learn(news),
            event = events.next() => match event {
                Some(Ok(event)) if app.leaves_at(&event) => break Ok(()),
                Some(Ok(_)) => {}
                Some(Err(error)) => break Err(error.into()),
                None => break Ok(()),
            },
            _ = ticks.tick() => {}
        }
    };
    ratatui::try_restore()?;
    result
}

impl App {
    fn new(sidecars: Vec<Sidecar>) -> Self {
        Self { sidecars, chosen: 0, part: Part::default(), scrolled: 0, area: Rect::default() }
    }

    /// Does what a key asks; `true` when it asks to leave.
    fn leaves_at(&mut self, event: &Event) -> bool {
        let Event::Key(key) = event else { return false };
        if key.kind == KeyEventKind::Release {
            return false;
        }
        let last = self.sidecars.len().saturating_sub(1);
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return true,
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return true,
            KeyCode::Up | KeyCode::Char('k') => self.chosen = self.chosen.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.chosen = (self.chosen + 1).min(last),
            KeyCode::Left | KeyCode::Char('h') => self.sidecars[self.chosen].choose(-1),
            KeyCode::Right | KeyCode::Char('l') => self.sidecars[self.chosen].choose(1),
            KeyCode::Tab => self.part = draw::next_part(self),
            KeyCode::PageUp | KeyCode::Char('u') => self.scrolled = draw::scroll(self, false),
            KeyCode::PageDown | KeyCode::Char('d') => self.scrolled = draw::scroll(self, true),
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossterm::event::KeyEvent;

    #[test]
    fn keys_choose_and_leave() {
        let sidecar = || Sidecar::new("127.0.0.1:1".parse().unwrap());
        let mut app = App::new(vec![sidecar(), sidecar()]);
        let press = |code| Event::Key(KeyEvent::new(code, KeyModifiers::NONE));
        for (code, chosen) in [(KeyCode::Up, 0), (KeyCode::Down, 1), (KeyCode::Char('j'), 1), (KeyCode::Char('k'), 0)] {
            assert!(!app.leaves_at(&press(code)));
            assert_eq!(app.chosen, chosen);
        }
        let mut parts = |width, height| {
            app.area = Rect::new(0, 0, width, height);
            [(); 5].map(|()| {
                for code in [KeyCode::Tab, KeyCode::Left, KeyCode::PageDown, KeyCode::PageUp] {
                    assert!(!app.leaves_at(&press(code)));
                }
                app.part
            })
        };
        use Part::{Configuration, Curves, Findings, Receipts, Segments};
        assert_eq!(parts(80, 24), [Findings, Segments, Curves, Configuration, Receipts]);
        assert_eq!(parts(59, 9), [Receipts; 5], "where nothing fits, there is nothing to choose");
        assert_eq!(parts(120, 40), [Configuration, Receipts, Configuration, Receipts, Configuration]);
        assert!(!app.leaves_at(&Event::Resize(10, 10)));
        assert!(app.leaves_at(&press(KeyCode::Char('q'))));
        assert!(app.leaves_at(&Event::Key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL))));
    }
}
