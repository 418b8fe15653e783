//! A trait over the bus: one table gives the caller's side and the server's side.

/// Makes of a trait of async methods `(&self, cx: &Context, …) -> Result<…>` a struct that implements it by calls,
/// and a function that gives the handlers which answer them. Arguments are named with the type they have in the
/// trait and, after `=`, the owned type that crosses the bus.
///
/// ```ignore
/// bus::remote! {
///     /// The agent on another host.
///     pub struct RemoteCompute: Compute as compute_handlers {
///         build(instance: &Instance = Instance) -> Observed;
///         stop(uuid: &str = String, grace_seconds: u64 = u64) -> Observed;
///     }
/// }
/// ```
#[macro_export]
macro_rules! remote {
    ($(#[$meta:meta])* $vis:vis struct $remote:ident: $trait:ident as $handlers:ident {
        $($method:ident($($arg:ident: $borrowed:ty = $owned:ty),* $(,)?) -> $reply:ty;)*
    }) => {
        $(#[$meta])*
        #[derive(Clone)]
        $vis struct $remote { bus: $crate::Bus, topic: $crate::Topic }

        impl $remote {
            $vis fn new(bus: $crate::Bus, topic: $crate::Topic) -> Self {
                Self { bus, topic }
            }
        }

        #[$crate::async_trait]
        impl $trait for $remote {
            $(async fn $method(&self, cx: &::base::Context, $($arg: $borrowed),*) -> ::base::Result<$reply> {
                const NAME: &str = concat!(stringify!($trait), ".", stringify!($method));
                self.bus.call_named(cx, &self.topic, NAME, &($($arg,)*)).await
            })*
        }

        #[doc = concat!("Answers the calls of [`", stringify!($remote), "`].")]
        $vis fn $handlers(served: ::std::sync::Arc<dyn $trait>) -> $crate::Handlers {
            let handlers = $crate::Handlers::new();
            $(let handlers = {
                const NAME: &str = concat!(stringify!($trait), ".", stringify!($method));
                let served = served.clone();
                handlers.on_named(NAME, |_| None, move |cx: ::base::Context, arguments: ($($owned,)*)| {
                    let served = served.clone();
                    async move {
                        let ($($arg,)*) = &arguments;
                        served.$method(&cx, $($crate::Lend::<$borrowed>::lend($arg)),*).await
                    }
                })
            };)*
            drop(served);
            handlers
        }
    };
}

/// From what crossed the bus to what the trait's method takes.
pub trait Lend<'a, T> {
    fn lend(&'a self) -> T;
}

impl<'a, T: Copy> Lend<'a, T> for T {
    fn lend(&'a self) -> T {
        *self
    }
}

impl<'a, T> Lend<'a, &'a T> for T {
    fn lend(&'a self) -> &'a T {
        self
    }
}

impl<'a> Lend<'a, &'a str> for String {
    fn lend(&'a self) -> &'a str {
        self
    }
}

impl<'a, T> Lend<'a, &'a [T]> for Vec<T> {
    fn lend(&'a self) -> &'a [T] {
        self
    }
}
