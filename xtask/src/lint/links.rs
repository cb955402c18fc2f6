//! A link of the documentation that leads nowhere is refused: to a file that is not there, or to a
//! heading that it does not have. What lies outside of the project is not looked for.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Result, bail};
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use crate::paths;

/// Follows every link of every page.
pub fn check() -> Result<()> {
    let root = paths::root();
    let mut pages = HashMap::new();
    for file in super::files(&root, &[".md"])? {
        let page = Page::of(&fs::read_to_string(&file)?);
        pages.insert(file.canonicalize()?, page);
    }
    let mut broken = Vec::new();
    for (file, page) in &pages {
        let name = file.strip_prefix(&root).unwrap_or(file).display();
        let dead = page.links.iter().filter(|link| !leads_somewhere(file, link, &pages));
        broken.extend(dead.map(|link| format!("{name}: {link}")));
    }
    broken.sort();
    if broken.is_empty() {
        return Ok(());
    }
    bail!("{}: no such file or heading", broken.join(", "))
}

fn leads_somewhere(file: &Path, link: &str, pages: &HashMap<std::path::PathBuf, Page>) -> bool {
    if link.contains("://") || link.starts_with("mailto:") {
        return true;
    }
    let (path, heading) = link.split_once('#').unwrap_or((link, ""));
    let target = match path {
        "" => file.to_owned(),
        path => file.parent().unwrap_or(file).join(path),
    };
    let Ok(target) = target.canonicalize() else { return false };
    heading.is_empty() || pages.get(&target).is_some_and(|page| page.has(heading))
}

/// What of a page matters here.
#[derive(Debug, Default)]
struct Page {
    /// Where its links and pictures lead.
    links: Vec<String>,
    /// What its headings are called in links.
    headings: Vec<String>,
}

impl Page {
    fn of(text: &str) -> Self {
        let mut page = Self::default();
        let mut heading: Option<String> = None;
        for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push(dest_url.into_string());
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    page.headings.extend(heading.take().map(|text| name_of(&text)));
                }
                Event::Text(text) | Event::Code(text) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&text);
                    }
                }
                _ => {}
            }
        }
        page
    }

    fn has(&self, heading: &str) -> bool {
        self.headings.iter().any(|name| name == heading)
    }
}

/// What the sites that show Markdown make of a heading.
fn name_of(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# One `two`, three!\n\n\
        [a](b.md#c-d) ![e](f.svg) `[g](h)`\n\n\
        ```sh\n# no heading\n```\n\n\
        | i |\n|---|\n| [j](#one-two-three) |\n";

    #[test]
    fn links_and_headings_are_found() {
        let page = Page::of(TEXT);
        assert_eq!(page.links, ["b.md#c-d", "f.svg", "#one-two-three"]);
        assert_eq!(page.headings, ["one-two-three"]);
    }

    #[test]
    fn a_link_leads_to_a_file_and_its_heading() {
        let root = paths::root().canonicalize().unwrap();
        let readme = root.join("README.md");
        let pages = HashMap::from([(readme.clone(), Page::of(TEXT))]);
        let leads = |link| leads_somewhere(&readme, link, &pages);
        assert!(leads("#one-two-three") && leads("README.md#one-two-three") && leads("docs"));
        assert!(leads("https://example.org/nowhere") && leads("mailto:nobody"));
        assert!(!leads("#two") && !leads("nowhere.md") && !leads("Cargo.toml#one-two-three"));
    }
}
