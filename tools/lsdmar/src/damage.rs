//! What makes a file a bad one: bytes that cannot be what the specification says, whatever they mean.

use dmar::{Dmar, DmarError, ScopeErrorKind, Structure, StructureError, StructureErrorKind};

/// Every damage of the table, in its order, one line each. A structure whose content cannot be used although its bytes
/// are all there, such as a unit with the register base 0, is no damage: real machines have it, and the tree says so.
pub fn damages(dmar: &Dmar<'_>, table: Option<DmarError>) -> Vec<String> {
    let mut damages: Vec<String> = table.iter().map(short).collect();
    for structure in dmar.structures() {
        let scopes = match structure {
            Ok(structure) => scopes(&structure),
            Err(error) => {
                if is_damage(&error) {
                    damages.push(short(&error));
                }
                // Where the table ends early, nothing of the last structure can be relied on.
                (!error.ends_table()).then(|| error.scopes())
            }
        };
        let errors = scopes.iter().flat_map(|scopes| scopes.iter()).filter_map(Result::err);
        damages.extend(errors.filter(|error| !is_only_content(error.kind)).map(|error| short(&error)));
    }
    damages
}

/// The message without the name of the table, which whoever prints it has said already.
pub(crate) fn short(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("DMAR").unwrap_or(&text);
    text.strip_prefix(':').unwrap_or(text).trim_start().to_string()
}

/// The device scopes of a structure; `None` where its type has none.
pub(crate) fn scopes<'a>(structure: &Structure<'a>) -> Option<dmar::DeviceScopes<'a>> {
    match structure {
        Structure::Drhd(structure) => Some(structure.scopes()),
        Structure::Rmrr(structure) => Some(structure.scopes()),
        Structure::Atsr(structure) => Some(structure.scopes()),
        Structure::Satc(structure) => Some(structure.scopes()),
        Structure::Sidp(structure) => Some(structure.scopes()),
        Structure::Rhsa(_) | Structure::Andd(_) | Structure::Unknown(_) => None,
    }
}

fn is_damage(error: &StructureError<'_>) -> bool {
    error.ends_table() || matches!(error.kind, StructureErrorKind::TooShort { .. })
}

/// Whether the scope's bytes are all there, and only what they say is wrong.
fn is_only_content(kind: ScopeErrorKind) -> bool {
    matches!(kind, ScopeErrorKind::NoSuchFunction { .. })
}
