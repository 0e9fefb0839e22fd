//! The macro that makes a component's exports of a function.

/// Exports a function as a filter. Once per crate.
///
/// - `filter!(keep)`, with `fn keep(message: &Message<'_>) -> bool`;
/// - `filter!(parse, keep)`, where `fn parse(config: &[u8]) -> Result<Config, impl Display>` reads a
///   binding's configuration once and `fn keep(config: &Config, message: &Message<'_>) -> bool` gets
///   it with each message. What `parse` refuses is shown to whoever makes the binding.
/// - `needs: [tag, group, keys, properties, body]` may follow either: the fields that the function
///   reads. Everything if it is left out. A filter that doesn't need bodies costs the same whatever
///   their size; reading a body without asking for it panics.
///
/// ```
/// use tidegate_plugin_sdk::{Message, filter, testing};
///
/// struct Config {
///     tag: String,
/// }
///
/// fn parse(config: &[u8]) -> Result<Config, String> {
///     match str::from_utf8(config) {
///         Ok(tag) if !tag.is_empty() => Ok(Config { tag: tag.into() }),
///         _ => Err("the configuration is the tag to keep".into()),
///     }
/// }
///
/// fn keep(config: &Config, message: &Message<'_>) -> bool {
///     message.tag() == Some(&config.tag)
/// }
///
/// filter!(parse, keep, needs: [tag]);
///
/// # fn main() {
/// let sample = testing::Sample::new("body").tag("UA");
/// assert_eq!(testing::check::<Filter>(b"UA", &[sample]), Ok(vec![true]));
/// # }
/// ```
#[macro_export]
macro_rules! filter {
    ($keep:path $(,)?) => {
        $crate::filter!(@plugin $crate::Needs::ALL, config, {
            $crate::no_config(config)?;
            $crate::Judge::new($keep)
        });
    };
    ($keep:path, needs: [$($need:ident),* $(,)?] $(,)?) => {
        $crate::filter!(@plugin $crate::filter!(@needs $($need)*), config, {
            $crate::no_config(config)?;
            $crate::Judge::new($keep)
        });
    };
    ($parse:path, $keep:path $(,)?) => {
        $crate::filter!(@plugin $crate::Needs::ALL, config, {
            $crate::filter!(@configured $parse, $keep, config)
        });
    };
    ($parse:path, $keep:path, needs: [$($need:ident),* $(,)?] $(,)?) => {
        $crate::filter!(@plugin $crate::filter!(@needs $($need)*), config, {
            $crate::filter!(@configured $parse, $keep, config)
        });
    };
    (@needs $($need:ident)*) => {
        $crate::Needs { $($need: true,)* ..$crate::Needs::NONE }
    };
    (@configured $parse:path, $keep:path, $config:ident) => {{
        let parsed = $parse($config).map_err(|error| ::std::string::ToString::to_string(&error))?;
        $crate::Judge::new(move |message| $keep(&parsed, message))
    }};
    (@plugin $needs:expr, $config:ident, $judge:block) => {
        /// The filter of this crate, as [`tidegate_plugin_sdk::testing::check`] takes it.
        pub struct Filter;

        impl $crate::Plugin for Filter {
            const NEEDS: $crate::Needs = $needs;

            fn configure(
                $config: &[u8],
            ) -> ::core::result::Result<$crate::Judge, ::std::string::String> {
                ::core::result::Result::Ok($judge)
            }
        }

        #[cfg(target_arch = "wasm32")]
        type FilterExports = $crate::exports::Exports<Filter>;
        #[cfg(target_arch = "wasm32")]
        $crate::exports::export!(FilterExports with_types_in $crate::exports);
    };
}
