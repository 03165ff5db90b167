//! The attributes `#[ringloop::main]` and `#[ringloop::test]`. Use them through the crate `ringloop`, where they are
//! described.
//!
//! Both turn `async fn name() -> T { body }` into `fn name() -> T { ringloop::…(async { body }) }`. The tokens between are
//! kept as they are, so no parser of Rust is needed.

use proc_macro::{Delimiter, Group, Ident, Punct, Spacing, Span, TokenStream, TokenTree};

/// Runs the body of `async fn main()` on a loop.
#[proc_macro_attribute]
pub fn main(arguments: TokenStream, function: TokenStream) -> TokenStream {
    expand(&arguments, function, "main", "__main").unwrap_or_else(error)
}

/// Runs the body of an `async fn` as a test, on a loop of its own.
#[proc_macro_attribute]
pub fn test(arguments: TokenStream, function: TokenStream) -> TokenStream {
    expand(&arguments, function, "test", "__test")
        .map(|function| {
            let attribute: TokenStream =
                "#[::core::prelude::v1::test]".parse().expect("an attribute");
            attribute.into_iter().chain(function).collect()
        })
        .unwrap_or_else(error)
}

fn expand(
    arguments: &TokenStream,
    function: TokenStream,
    attribute: &str,
    runs_it: &str,
) -> Result<TokenStream, String> {
    if !arguments.is_empty() {
        return Err(format!("#[ringloop::{attribute}] takes no arguments"));
    }
    let mut tokens: Vec<_> = function.into_iter().collect();
    let Some(TokenTree::Group(body)) = tokens.pop() else {
        return Err(format!("#[ringloop::{attribute}] goes on a function with a body"));
    };
    let is = |token: &TokenTree, word: &str| matches!(token, TokenTree::Ident(ident) if ident.to_string() == word);
    let Some(at) = tokens.windows(2).position(|pair| is(&pair[0], "async") && is(&pair[1], "fn"))
    else {
        return Err(format!("#[ringloop::{attribute}] goes on an `async fn`"));
    };
    if !matches!(tokens.get(at + 3), Some(TokenTree::Group(list)) if list.stream().is_empty()) {
        return Err(format!("a function with #[ringloop::{attribute}] takes no arguments"));
    }
    tokens.remove(at);
    let call = call(runs_it, body);
    tokens.push(Group::new(Delimiter::Brace, call).into());
    Ok(tokens.into_iter().collect())
}

/// `::ringloop::name(async body)`
fn call(name: &str, body: Group) -> TokenStream {
    let span = Span::call_site();
    let colons =
        || [Punct::new(':', Spacing::Joint), Punct::new(':', Spacing::Alone)].map(TokenTree::from);
    let ident = |word| TokenTree::from(Ident::new(word, span));
    let argument = [ident("async"), body.into()].into_iter().collect();
    let argument = TokenTree::from(Group::new(Delimiter::Parenthesis, argument));
    colons()
        .into_iter()
        .chain([ident("ringloop")])
        .chain(colons())
        .chain([ident(name), argument])
        .collect()
}

fn error(text: String) -> TokenStream {
    format!("::core::compile_error!({text:?});").parse().expect("a call of a macro")
}
