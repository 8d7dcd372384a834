//! What functions ask for, read from their syntax.

use syn::visit::Visit;

/// As clippy's `too_many_arguments` counts: with `self`.
const MOST_PARAMETERS: usize = 6;

/// The functions of a file, macros left out, that ask for too much: for more than six parameters, or for tuples, which say nothing of what is in
/// them.
pub(crate) fn bad_signatures(text: &str) -> Vec<String> {
    let mut reader = Reader::default();
    reader.visit_file(&syn::parse_file(text).expect("code that compiles"));
    reader.found
}

#[derive(Default)]
struct Reader {
    found: Vec<String>,
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        let name = &signature.ident;
        if signature.inputs.len() > MOST_PARAMETERS {
            self.found.push(format!("{name} has {} parameters", signature.inputs.len()));
        }
        for input in &signature.inputs {
            if let syn::FnArg::Typed(input) = input
                && is_tuple(&input.ty)
            {
                self.found.push(format!("{name} takes a tuple"));
            }
        }
        syn::visit::visit_signature(self, signature);
    }
}

/// Whether a type is a tuple, or a reference to one or an option of one. A slice of pairs is a table.
fn is_tuple(of: &syn::Type) -> bool {
    match of {
        syn::Type::Tuple(tuple) => !tuple.elems.is_empty(),
        syn::Type::Reference(reference) => is_tuple(&reference.elem),
        syn::Type::Paren(inner) => is_tuple(&inner.elem),
        syn::Type::Path(path) => path.path.segments.last().is_some_and(|last| {
            let syn::PathArguments::AngleBracketed(inner) = &last.arguments else { return false };
            last.ident == "Option"
                && inner.args.iter().any(|inner| matches!(inner, syn::GenericArgument::Type(inner) if is_tuple(inner)))
        }),
        _ => false,
    }
}
