//! `vaxel top`: the status of a running vaxel, drawn again each second.

use std::io::{self, IsTerminal as _, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyModifiers};
use crossterm::style::{Attribute, Color, Print, ResetColor, SetAttribute, SetForegroundColor};
use crossterm::terminal::{self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{cursor, execute, queue};
use serde_json::Value;
use tokio::time::timeout;

use super::Failure;
use super::remote::AdminArgs;
use crate::admin::client::Client;
use crate::admin::top::{Line, Tone, frame, plain};
use crate::clock::Clock;

#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// Print one frame and exit.
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Draws until somebody quits; where there is no terminal, frames are printed one after the other.
pub(super) fn top(args: &TopArgs) -> Result<ExitCode, Failure> {
    let client = args.admin.client()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ask = || runtime.block_on(latest(&client));
    // What does not answer at all is told before the screen is taken.
    let mut status = ask()?;
    if args.once || !io::stdout().is_terminal() {
        loop {
            let text = plain(&frame(&status, WIDTH, usize::MAX));
            if writeln!(io::stdout(), "{text}").is_err() || args.once {
                return Ok(ExitCode::SUCCESS);
            }
            runtime.block_on(tokio::time::sleep(PERIOD));
            status = ask()?;
        }
    }
    let mut screen = Screen::take()?;
    let mut trouble = None;
    loop {
        screen.draw(&status, trouble.as_deref())?;
        if quits_within(PERIOD)? {
            return Ok(ExitCode::SUCCESS);
        }
        match ask() {
            Ok(fresh) => (status, trouble) = (fresh, None),
            Err(error) => trouble = Some(error.to_string()),
        }
    }
}

async fn latest(client: &Client) -> Result<Value, Failure> {
    let answer = timeout(PATIENCE, client.get("/status")).await;
    Ok(answer.map_err(|_| "the admin listener does not answer in time")??)
}

/// Whether somebody quits within `period`; a new size of the terminal ends the wait.
fn quits_within(period: Duration) -> io::Result<bool> {
    let clock = Clock::system();
    let end = clock.now() + period;
    loop {
        let left = end.saturating_duration_since(clock.now());
        if !event::poll(left)? {
            return Ok(false);
        }
        match event::read()? {
            Event::Key(key) if is_quit(key) => return Ok(true),
            Event::Resize(..) => return Ok(false),
            _ => {}
        }
    }
}

fn is_quit(KeyEvent { code, modifiers, .. }: KeyEvent) -> bool {
    match code {
        KeyCode::Char('c') => modifiers.contains(KeyModifiers::CONTROL),
        KeyCode::Char('q') | KeyCode::Esc => true,
        _ => false,
    }
}

/// The terminal while it is ours; given back however this ends.
struct Screen(io::Stdout);

impl Screen {
    fn take() -> io::Result<Self> {
        terminal::enable_raw_mode()?;
        let mut screen = Self(io::stdout());
        execute!(screen.0, EnterAlternateScreen, cursor::Hide)?;
        Ok(screen)
    }

    fn draw(&mut self, status: &Value, trouble: Option<&str>) -> io::Result<()> {
        let (width, height) = terminal::size()?;
        let mut lines = frame(status, width.into(), height.saturating_sub(1).into());
        lines.resize(height.saturating_sub(1).into(), Line::new());
        let last = match trouble {
            Some(trouble) => (Tone::Bad, format!("{trouble}; q quits")),
            None => (Tone::Quiet, "q quits".to_owned()),
        };
        lines.push(vec![last]);
        for (row, line) in lines.iter().enumerate() {
            queue!(self.0, cursor::MoveTo(0, u16::try_from(row).unwrap_or(u16::MAX)), Clear(ClearType::UntilNewLine))?;
            for (tone, text) in line {
                style(&mut self.0, *tone)?;
                queue!(self.0, Print(text), ResetColor, SetAttribute(Attribute::Reset))?;
            }
        }
        self.0.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = execute!(self.0, LeaveAlternateScreen, cursor::Show);
        let _ = terminal::disable_raw_mode();
    }
}

fn style(out: &mut impl Write, tone: Tone) -> io::Result<()> {
    match tone {
        Tone::Plain => Ok(()),
        Tone::Head => queue!(out, SetAttribute(Attribute::Bold)),
        Tone::Quiet => queue!(out, SetAttribute(Attribute::Dim)),
        Tone::Good => queue!(out, SetForegroundColor(Color::Green)),
        Tone::Warn => queue!(out, SetForegroundColor(Color::Yellow)),
        Tone::Bad => queue!(out, SetForegroundColor(Color::Red), SetAttribute(Attribute::Bold)),
    }
}

const PERIOD: Duration = Duration::from_secs(1);
/// For an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Columns where there is no terminal: a path may be longer.
const WIDTH: usize = 200;
