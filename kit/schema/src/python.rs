//! Values as Python prints them: `repr`, `str` and `pprint`, which OpenStack's error texts are made of.

use base::Json;

/// `'x'`, `True`, `None`, `{'a': 1}`.
pub fn repr(value: &Json) -> String {
    match value {
        Json::Null => "None".into(),
        Json::Bool(true) => "True".into(),
        Json::Bool(false) => "False".into(),
        Json::Number(number) => self::number(number),
        Json::String(text) => quote(text),
        Json::Array(items) => format!("[{}]", items.iter().map(repr).collect::<Vec<_>>().join(", ")),
        Json::Object(map) => {
            let pairs: Vec<_> = map.iter().map(|(k, v)| format!("{}: {}", quote(k), repr(v))).collect();
            format!("{{{}}}", pairs.join(", "))
        }
    }
}

/// As `repr`, but a string stands bare.
pub fn str(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        other => repr(other),
    }
}

/// A string literal: single quotes unless only those occur inside.
pub fn quote(text: &str) -> String {
    let mark = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::with_capacity(text.len() + 2);
    out.push(mark);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == mark => out.extend(['\\', c]),
            c if c.is_control() || (c.is_whitespace() && c != ' ') => match c as u32 {
                code @ 0..=0xff => out.push_str(&format!("\\x{code:02x}")),
                code => out.push_str(&format!("\\u{code:04x}")),
            },
            c => out.push(c),
        }
    }
    out.push(mark);
    out
}

fn number(number: &serde_json::Number) -> String {
    if !number.is_f64() {
        return number.to_string();
    }
    let value = number.as_f64().unwrap_or_default();
    let size = value.abs();
    if value == 0.0 || (1e-4..1e16).contains(&size) {
        return format!("{value:?}");
    }
    // Python writes at least two digits of exponent, and its sign.
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
    format!("{digits}e{sign}{exponent:0>2}")
}

/// `pprint.pformat` with `sort_dicts=False`.
pub fn pretty(value: &Json, width: usize) -> String {
    let mut out = String::new();
    format(value, width, 0, 0, 1, &mut out);
    out
}

fn format(value: &Json, width: usize, indent: usize, allowance: usize, level: usize, out: &mut String) {
    let flat = repr(value);
    if (flat.chars().count() + indent + allowance) <= width {
        out.push_str(&flat);
        return;
    }
    match value {
        Json::Object(map) => {
            out.push('{');
            for (at, (key, inner)) in map.iter().enumerate() {
                let key = format!("{}: ", quote(key));
                out.push_str(&key);
                let last = at + 1 == map.len();
                let allowance = if last { allowance + 1 } else { 1 };
                format(inner, width, indent + 1 + key.chars().count(), allowance, level + 1, out);
                if !last {
                    separate(indent + 1, out);
                }
            }
            out.push('}');
        }
        Json::Array(items) => {
            out.push('[');
            for (at, inner) in items.iter().enumerate() {
                let last = at + 1 == items.len();
                let allowance = if last { allowance + 1 } else { 1 };
                format(inner, width, indent + 1, allowance, level + 1, out);
                if !last {
                    separate(indent + 1, out);
                }
            }
            out.push(']');
        }
        Json::String(text) if !text.is_empty() => long_string(text, width, indent, allowance, level, out),
        _ => out.push_str(&flat),
    }
}

fn separate(indent: usize, out: &mut String) {
    out.push_str(",\n");
    out.extend(std::iter::repeat_n(' ', indent));
}

/// A string too long for its line is written as several, broken after white space.
fn long_string(text: &str, width: usize, indent: usize, allowance: usize, level: usize, out: &mut String) {
    let (indent, allowance) = if level == 1 { (indent + 1, allowance + 1) } else { (indent, allowance) };
    let room = width.saturating_sub(indent);
    let size = |text: &str| quote(text).chars().count();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let mut chunks = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let last_line = at + 1 == lines.len();
        if size(line) <= if last_line { room.saturating_sub(allowance) } else { room } {
            chunks.push(quote(line));
            continue;
        }
        let words = words(line);
        let mut current = String::new();
        for (nth, word) in words.iter().enumerate() {
            let last = last_line && nth + 1 == words.len();
            let candidate = format!("{current}{word}");
            if size(&candidate) > if last { room.saturating_sub(allowance) } else { room } {
                if !current.is_empty() {
                    chunks.push(quote(&current));
                }
                current = word.to_string();
            } else {
                current = candidate;
            }
        }
        if !current.is_empty() {
            chunks.push(quote(&current));
        }
    }
    if chunks.len() == 1 {
        out.push_str(&quote(text));
        return;
    }
    let gap = format!("\n{}", " ".repeat(indent));
    let text = chunks.join(&gap);
    out.push_str(&if level == 1 { format!("({text})") } else { text });
}

/// Words with the white space behind them.
fn words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut start = 0;
    let mut in_space = false;
    for (at, c) in line.char_indices() {
        if in_space && !c.is_whitespace() {
            words.push(&line[start..at]);
            start = at;
        }
        in_space = c.is_whitespace();
    }
    words.push(&line[start..]);
    words
}
