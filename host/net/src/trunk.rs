//! Subports of a guest's tap. Frames of a VLAN on the tap go out of the subport's pair without their tag, and what comes
//! back gets the tag: small programs of the kernel's own (BPF), which `tc` hangs on the interfaces. Any kernel has them,
//! also one without VLAN interfaces, and on a bridge a subport then is a port like any other. Tagged frames that are no
//! subport's pass neither way.

use base::{Error, Json, Result};
use host_run::run;
use std::{collections::BTreeSet, path::Path};

pub const INGRESS: &str = "ingress";
pub const EGRESS: &str = "egress";

/// One instruction: what, with which registers (target, source), how far to jump or what to load, and a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction(u8, [u8; 2], i16, i32);

/// A program, by the name under which `tc` lists it.
pub struct Program {
    name: String,
    code: Vec<u8>,
}

// Registers: 0 is what a call or the program answers, 1 to 3 are what is given to a call, 6 and 7 stay over calls.
const ANSWER: u8 = 0;
const FIRST: u8 = 1;
const SECOND: u8 = 2;
const THIRD: u8 = 3;
const FRAME: u8 = 6;
const TAG: u8 = 7;

const MOVE: u8 = 0xbf;
const SET: u8 = 0xb7;
const AND: u8 = 0x57;
const LOAD: u8 = 0x61;
const IF_NOT: u8 = 0x55;
const IF: u8 = 0x15;
const CALL: u8 = 0x85;
const END: u8 = 0x95;

// What the kernel says of a frame, by the place in `__sk_buff`.
const IS_TAGGED: i16 = 20;
const TCI: i16 = 24;
const PROTOCOL_OF_TAG: i16 = 28;
const CAME_IN_BY: i16 = 36;

// Functions of the kernel.
const PUSH_TAG: i32 = 18;
const POP_TAG: i32 = 19;
const REDIRECT: i32 = 23;

/// What a program answers: the frame goes on as ever, or no further.
const GO_ON: i32 = -1;
const DROP: i32 = 2;

const VLAN_ID: i32 = 0xfff;

/// 802.1Q as it is on the wire.
fn protocol() -> i32 {
    0x8100_u16.to_be().into()
}

fn index(interface: u32) -> Result<i32> {
    i32::try_from(interface).map_err(|_| Error::internal(format!("no interface has the index {interface}")))
}

fn answer(number: i32) -> [Instruction; 2] {
    [Instruction(SET, [ANSWER, 0], 0, number), Instruction(END, [0, 0], 0, 0)]
}

fn call(function: i32) -> Instruction {
    Instruction(CALL, [0, 0], 0, function)
}

/// Out of another interface; ends the program.
fn redirect(to: i32) -> [Instruction; 4] {
    [
        Instruction(SET, [FIRST, 0], 0, to),
        Instruction(SET, [SECOND, 0], 0, 0),
        call(REDIRECT),
        Instruction(END, [0, 0], 0, 0),
    ]
}

/// Frames without a tag go on, others of another protocol than 802.1Q nowhere; the VLAN is in `TAG` then. One without
/// an id only has a priority.
fn tagged() -> Vec<Instruction> {
    let mut code = vec![
        Instruction(MOVE, [FRAME, FIRST], 0, 0),
        Instruction(LOAD, [TAG, FRAME], IS_TAGGED, 0),
        Instruction(IF_NOT, [TAG, 0], 2, 0),
    ];
    code.extend(answer(GO_ON));
    code.extend([
        Instruction(LOAD, [TAG, FRAME], PROTOCOL_OF_TAG, 0),
        Instruction(IF, [TAG, 0], 2, protocol()),
    ]);
    code.extend(answer(DROP));
    code.extend([
        Instruction(LOAD, [TAG, FRAME], TCI, 0),
        Instruction(AND, [TAG, 0], 0, VLAN_ID),
        Instruction(IF_NOT, [TAG, 0], 2, 0),
    ]);
    code.extend(answer(GO_ON));
    code
}

/// What a guest sends, for the ingress of its tap: VLANs and the interfaces out of which they go.
pub fn from_parent(ends: &[(u16, u32)]) -> Result<Program> {
    let mut code = tagged();
    for (vlan, interface) in ends {
        let mut of_vlan = vec![Instruction(MOVE, [FIRST, FRAME], 0, 0), call(POP_TAG)];
        of_vlan.extend(redirect(index(*interface)?));
        code.push(Instruction(IF_NOT, [TAG, 0], of_vlan.len() as i16, i32::from(*vlan)));
        code.extend(of_vlan);
    }
    code.extend(answer(DROP));
    Ok(program(&code))
}

/// What a guest gets, for the egress of its tap: frames with a tag come from the subport of their VLAN alone, not from
/// the parent's network.
pub fn guarded(ends: &[(u16, u32)]) -> Result<Program> {
    let mut code = tagged();
    code.push(Instruction(LOAD, [SECOND, FRAME], CAME_IN_BY, 0));
    for (vlan, interface) in ends {
        code.push(Instruction(IF_NOT, [TAG, 0], 3, i32::from(*vlan)));
        code.push(Instruction(IF_NOT, [SECOND, 0], 2, index(*interface)?));
        code.extend(answer(GO_ON));
    }
    code.extend(answer(DROP));
    Ok(program(&code))
}

/// What a subport's network sends to the guest, for the ingress of the pair's other end.
pub fn to_parent(vlan: u16, tap: u32) -> Result<Program> {
    let mut code = vec![
        Instruction(SET, [SECOND, 0], 0, protocol()),
        Instruction(SET, [THIRD, 0], 0, i32::from(vlan)),
        call(PUSH_TAG),
    ];
    code.extend(redirect(index(tap)?));
    Ok(program(&code))
}

fn program(code: &[Instruction]) -> Program {
    let bytes = |Instruction(what, [target, source], jump, number): &Instruction| {
        let registers = source << 4 | target;
        let [a, b] = jump.to_ne_bytes();
        let [c, d, e, f] = number.to_ne_bytes();
        [*what, registers, a, b, c, d, e, f]
    };
    let code: Vec<u8> = code.iter().flat_map(bytes).collect();
    let text: String = code.iter().map(|byte| format!("{byte:02x}")).collect();
    Program { name: format!("{}.o", &base::id::derived(&["trunk", &text])[..8]), code }
}

const SECTION: &str = "classifier";

/// An object file of one section, as compilers make them for `tc`.
fn object(code: &[u8]) -> Vec<u8> {
    const NAMES: &[u8] = b"\0classifier\0license\0.strtab\0.symtab\0program\0";
    const LICENSE: &[u8] = b"Apache-2.0\0";
    const HEADER_BYTES: u64 = 64;
    let place =
        |name: &str| NAMES.windows(name.len()).position(|some| some == name.as_bytes()).unwrap_or(0) as u32;
    let align = |bytes: &mut Vec<u8>| bytes.resize(bytes.len().next_multiple_of(8), 0);
    let mut body = code.to_vec();
    let license = body.len() as u64;
    body.extend(LICENSE);
    let names = body.len() as u64;
    body.extend(NAMES);
    align(&mut body);
    let symbols = body.len() as u64;
    body.extend([0; 24]);
    // A global function in the first section.
    body.extend(place("program").to_ne_bytes());
    body.extend([0x12, 0, 1, 0]);
    body.extend(0_u64.to_ne_bytes());
    body.extend((code.len() as u64).to_ne_bytes());
    let sections = HEADER_BYTES + body.len() as u64;
    // Name, kind, flags, where it begins and its length; then what it refers to, its alignment, and its entries' length.
    let mut section =
        |name: u32, kind: u32, flags: u64, at: u64, length: u64, refers: [u32; 2], more: [u64; 2]| {
            for number in [name, kind] {
                body.extend(number.to_ne_bytes());
            }
            for number in [flags, 0, at, length] {
                body.extend(number.to_ne_bytes());
            }
            for number in refers {
                body.extend(number.to_ne_bytes());
            }
            for number in more {
                body.extend(number.to_ne_bytes());
            }
        };
    section(0, 0, 0, 0, 0, [0, 0], [0, 0]);
    section(place(SECTION), 1, 6, HEADER_BYTES, code.len() as u64, [0, 0], [8, 0]);
    section(place("license"), 1, 3, HEADER_BYTES + license, LICENSE.len() as u64, [0, 0], [1, 0]);
    section(place(".strtab"), 3, 0, HEADER_BYTES + names, NAMES.len() as u64, [0, 0], [1, 0]);
    section(place(".symtab"), 2, 0, HEADER_BYTES + symbols, 48, [3, 1], [8, 24]);
    let order = if cfg!(target_endian = "little") { 1 } else { 2 };
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, order, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // An object for the BPF machine.
    for number in [1_u16, 247] {
        file.extend(number.to_ne_bytes());
    }
    file.extend(1_u32.to_ne_bytes());
    for number in [0_u64, 0, sections] {
        file.extend(number.to_ne_bytes());
    }
    file.extend(0_u32.to_ne_bytes());
    for number in [64_u16, 0, 0, 64, 5, 3] {
        file.extend(number.to_ne_bytes());
    }
    file.extend(body);
    file
}

/// Hangs a program on an interface instead of what hangs there.
pub async fn attach(dir: &Path, interface: &str, way: &str, program: &Program) -> Result<()> {
    if hanging(interface, way).await?.as_ref() == Some(&program.name) {
        return Ok(());
    }
    let file = dir.join(&program.name);
    tokio::fs::write(&file, object(&program.code)).await?;
    run("tc").args(["qdisc", "replace", "dev", interface, "clsact"]).output().await?;
    let place = ["filter", "replace", "dev", interface, way, "pref", "1", "handle", "1", "protocol", "all"];
    let done = run("tc")
        .args(place)
        .args(["bpf", "direct-action", "object-file"])
        .arg(&file)
        .args(["section", SECTION])
        .output()
        .await;
    let _ = tokio::fs::remove_file(&file).await;
    done.map(drop)
}

/// Nothing hangs there any more; also when nothing did.
pub async fn detach(interface: &str) {
    let removed = run("tc").args(["qdisc", "del", "dev", interface, "clsact"]).status().await;
    if let Err(error) = removed {
        tracing::warn!(interface, %error, "its frames may go on as those of a trunk");
    }
}

/// The program on an interface.
async fn hanging(interface: &str, way: &str) -> Result<Option<String>> {
    let told = listed(&["-j", "filter", "show", "dev", interface, way]).await?;
    let mut names =
        told.as_array().into_iter().flatten().filter_map(|one| one["options"]["bpf_name"].as_str());
    Ok(names.next_back().and_then(|name| Some(name.split_once(':')?.0.to_string())))
}

/// Interfaces on which programs may hang.
pub async fn wired() -> Result<BTreeSet<String>> {
    let told = listed(&["-j", "qdisc", "show"]).await?;
    let all = told.as_array().into_iter().flatten().filter(|one| one["kind"] == "clsact");
    Ok(all.filter_map(|one| Some(one["dev"].as_str()?.to_string())).collect())
}

async fn listed(arguments: &[&str]) -> Result<Json> {
    let text = run("tc").args(arguments).text().await?;
    if text.trim().is_empty() {
        return Ok(Json::Null);
    }
    Ok(serde_json::from_str(&text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_what_their_ports_are() {
        let one = from_parent(&[(100, 7)]).unwrap();
        assert_eq!(one.name, from_parent(&[(100, 7)]).unwrap().name);
        for other in [&[(101, 7)][..], &[(100, 8)], &[(100, 7), (101, 9)], &[]] {
            assert_ne!(one.name, from_parent(other).unwrap().name);
        }
        assert!(to_parent(1, u32::MAX).is_err());
    }

    #[test]
    fn jumps_end_at_instructions() {
        for program in [from_parent(&[(1, 2), (3, 4)]).unwrap(), guarded(&[(1, 2), (3, 4)]).unwrap()] {
            let length = program.code.len() / 8;
            for (at, one) in
                program.code.chunks(8).enumerate().filter(|(_, one)| [IF, IF_NOT].contains(&one[0]))
            {
                let jump = i16::from_ne_bytes([one[2], one[3]]);
                assert!(at + 1 + (jump as usize) < length);
            }
            assert_eq!(program.code[(length - 1) * 8], END);
        }
    }

    #[test]
    fn an_object_names_its_sections() {
        let file = object(&[0; 16]);
        assert_eq!(&file[..4], b"\x7fELF");
        let sections = u64::from_ne_bytes(file[40..48].try_into().unwrap()) as usize;
        assert_eq!(file.len(), sections + 5 * 64);
    }
}
