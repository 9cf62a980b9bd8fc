//! `ebb top`: a live view of one or several sidecars in a terminal.
//!
//! ```text
//!  roster ── which sidecars: those of the present pods ───────► App
//!  follow ── a task per sidecar: connects, watches, retries ──► Sidecar (its latest state)
//!  keys, resizes ────────────────────────────────────────────► App ──► draw (pure)
//! ```

mod draw;
mod follow;
mod roster;

use super::connect::At;
use super::pods::{InCluster, Pods};
use super::targets::Target;
use clap::Args;
use crossterm::event::{Event, EventStream, KeyCode, KeyEventKind, KeyModifiers};
use ebb_config::units::Span;
use ebb_proto::client::Address;
use ebb_terminal::{Failure, Outcome};
use follow::Sidecar;
use futures::StreamExt as _;
use ratatui::layout::Rect;
use roster::Roster;
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

With a workload, top adds its new pods and drops deleted ones.
The first line shows the targets and the last change.

Keys:
  up, down (k, j)          select a sidecar
  left, right (h, l)       select a receipt
  tab                      show the next panel
  page up, down (u, d)     scroll the configuration
  q                        quit

Examples:
  ebb top
  ebb top --admin-addr 127.0.0.1:7071 --admin-addr unix:/run/ebb/admin.sock
  ebb top pod/shop-0 -n shop
  ebb top deploy/shop deploy/cart      every pod of two workloads")]
pub(crate) struct TopArgs {
    /// Pods or workloads whose sidecars to watch instead of addresses: pod/NAME, deploy/NAME. Uses kubectl's
    /// configuration, and the right to create pods/exec.
    #[arg(id = "target", value_name = "TARGET")]
    targets: Vec<Target>,
    #[command(flatten)]
    within: InCluster,
    /// Address of the admin listener: HOST:PORT or unix:/path; may be repeated.
    #[arg(long, env = "EBB_ADMIN_ADDR", value_name = "ADDR", value_delimiter = ',', default_value = "127.0.0.1:7071")]
    admin_addr: Vec<Address>,
    /// Interval between readings, at least 100ms.
    #[arg(long, value_name = "INTERVAL", default_value = "1s")]
    every: Span,
}

/// The state of the screen.
#[derive(Debug)]
struct App {
    sidecars: Vec<Sidecar>,
    /// The targets whose pods these are; `None` for servers at addresses.
    targets: Option<String>,
    /// The last change of the pods.
    change: Option<String>,
    /// Why the present pods are not known.
    problem: Option<String>,
    selected: usize,
    /// The panel that is shown if the screen is too small for all.
    panel: Panel,
    /// Index of the first visible line of the configuration.
    scroll_offset: usize,
    /// The area of the last draw.
    area: Rect,
}

/// A panel about the selected sidecar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumCount, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
enum Panel {
    /// The receipts of the cleaner.
    #[default]
    Receipts,
    /// The findings of the doctor.
    Findings,
    /// The occupancy of segments.
    Segments,
    /// The hit ratio and latency over time.
    Curves,
    /// All settings with their sources.
    Configuration,
}

impl Panel {
    fn name(self) -> &'static str {
        self.into()
    }
}

/// Shows the sidecars until the user quits.
pub(super) async fn run(args: TopArgs) -> Outcome {
    if args.every.0 < 100 {
        return Err(Failure::Usage("--every must be at least 100ms".into()));
    }
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(
            "ebb top needs a terminal; use `ebb stats --watch --output json` without one".into(),
        ));
    }
    let (sender, mut updates) = tokio::sync::mpsc::channel(64);
    let (mut roster, mut app) = (Roster::new(args.every.0, sender), App::new());
    let (looks, mut looked) = tokio::sync::mpsc::channel(1);
    if args.targets.is_empty() {
        args.admin_addr.into_iter().for_each(|address| roster.add(&mut app, At::Address(address)));
        drop(looks);
    } else {
        let pods = Pods::of(&args.targets, &args.within).await?;
        pods.find().await?.into_iter().for_each(|pod| roster.add(&mut app, At::Pod(Box::new(pod))));
        app.targets = Some(pods.to_string());
        tokio::spawn(roster::look(pods, looks));
    }
    let mut terminal = ratatui::try_init()?;
    let mut events = EventStream::new();
    // Redraw at least this often, even if no sidecar sends an update.
    let mut ticks = tokio::time::interval(Duration::from_millis(500));
    let result = loop {
        match terminal.draw(|frame| draw::draw(frame, &app)) {
            Ok(drawn) => app.area = drawn.area,
            Err(error) => break Err(error.into()),
        }
        tokio::select! {
            Some((id, update)) = updates.recv() => app.apply(id, update),
            Some(present) = looked.recv() => roster.show(&mut app, present),
            event = events.next() => match event {
                Some(Ok(event)) if app.handle(&event) => break Ok(()),
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
    fn new() -> Self {
        Self {
            sidecars: Vec::new(),
            targets: None,
            change: None,
            problem: None,
            selected: 0,
            panel: Panel::default(),
            scroll_offset: 0,
            area: Rect::default(),
        }
    }

    /// Applies an update of a sidecar, unless it has been removed since.
    fn apply(&mut self, id: u64, update: follow::Update) {
        if let Some(sidecar) = self.sidecars.iter_mut().find(|sidecar| sidecar.id == id) {
            sidecar.apply(update);
        }
    }

    /// The selected sidecar; `None` if there is none.
    fn selected(&self) -> Option<&Sidecar> {
        self.sidecars.get(self.selected)
    }

    fn select_receipt(&mut self, step: isize) {
        if let Some(sidecar) = self.sidecars.get_mut(self.selected) {
            sidecar.select_receipt(step);
        }
    }

    /// Handles a key; returns `true` if it quits.
    fn handle(&mut self, event: &Event) -> bool {
        let Event::Key(key) = event else { return false };
        if key.kind == KeyEventKind::Release {
            return false;
        }
        let last = self.sidecars.len().saturating_sub(1);
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return true,
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return true,
            KeyCode::Up | KeyCode::Char('k') => self.selected = self.selected.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.selected = (self.selected + 1).min(last),
            KeyCode::Left | KeyCode::Char('h') => self.select_receipt(-1),
            KeyCode::Right | KeyCode::Char('l') => self.select_receipt(1),
            KeyCode::Tab => self.panel = draw::next_panel(self),
            KeyCode::PageUp | KeyCode::Char('u') => self.scroll_offset = draw::scroll(self, false),
            KeyCode::PageDown | KeyCode::Char('d') => self.scroll_offset = draw::scroll(self, true),
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
    fn keys_select_and_quit() {
        let sidecar = |id| Sidecar::new(id, "127.0.0.1:1".parse().unwrap());
        let mut app = App { sidecars: vec![sidecar(1), sidecar(2)], ..App::new() };
        let press = |code| Event::Key(KeyEvent::new(code, KeyModifiers::NONE));
        for (code, selected) in [(KeyCode::Up, 0), (KeyCode::Down, 1), (KeyCode::Char('j'), 1), (KeyCode::Char('k'), 0)]
        {
            assert!(!app.handle(&press(code)));
            assert_eq!(app.selected, selected);
        }
        let mut panels = |width, height| {
            app.area = Rect::new(0, 0, width, height);
            [(); 5].map(|()| {
                for code in [KeyCode::Tab, KeyCode::Left, KeyCode::PageDown, KeyCode::PageUp] {
                    assert!(!app.handle(&press(code)));
                }
                app.panel
            })
        };
        use Panel::{Configuration, Curves, Findings, Receipts, Segments};
        assert_eq!(panels(80, 24), [Findings, Segments, Curves, Configuration, Receipts]);
        assert_eq!(panels(59, 9), [Receipts; 5], "no panel fits, so tab changes nothing");
        assert_eq!(panels(120, 40), [Configuration, Receipts, Configuration, Receipts, Configuration]);
        assert!(!app.handle(&Event::Resize(10, 10)));
        assert!(app.handle(&press(KeyCode::Char('q'))));
        assert!(app.handle(&Event::Key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL))));
    }
}
