//! A proxy-wasm host on wasmtime: loads the compiled filter and plays one worker of Envoy for it.
//! Time stands still unless a test moves it, randomness is a fixed sequence, call-outs are data that a test answers.
//! Knows nothing of what the filter decides.

mod foreign;
mod guest;
mod headers;
mod imports;
mod personality;
mod state;
#[cfg(test)]
mod tests;
mod wasi;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::OnceLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, anyhow, ensure};
use wasmtime::{Engine, Instance, Linker, Module, Store, WasmBacktrace};

use self::state::{Guest, State, Stream};
pub use self::{
    headers::Headers,
    personality::{ENVOY, Personality},
    state::{Answer, Call, Count, Line, Metric, Reply, Standing},
};

/// What one callback may spend. An endless loop would hold an Envoy worker for ever; here it is a trap.
const FUEL_PER_CALLBACK: u64 = 2_000_000_000;

/// The ABI that the host speaks.
const ABI: &str = "proxy_abi_version_0_2_1";

/// The filter trapped: in Envoy this stream gets 503 and the worker's VM is lost.
#[derive(Debug, thiserror::Error)]
#[error("{callback} trapped: {cause}\n{backtrace}")]
pub struct Trap {
    /// The callback that ran.
    pub callback: &'static str,
    /// Why, with its causes.
    pub cause: String,
    /// The Wasm frames.
    pub backtrace: String,
}

/// A compiled filter, from which any number of VMs start.
pub struct Filter {
    engine: Engine,
    module: Module,
}

impl Filter {
    /// The fused filter that `cargo xtask test` built, compiled once per process.
    pub fn suite() -> Result<&'static Self> {
        static SUITE: OnceLock<Result<Filter>> = OnceLock::new();
        SUITE
            .get_or_init(|| Self::load(&crate::env::path(crate::env::SUITE)?))
            .as_ref()
            .map_err(|error| anyhow!("{error:#}"))
    }

    /// Compiles the module in a file.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        Self::compile(&bytes).with_context(|| format!("loading {}", path.display()))
    }

    /// Compiles a module, quickly rather than well: a test runs few of its instructions.
    pub fn compile(bytes: &[u8]) -> Result<Self> {
        let mut config = wasmtime::Config::new();
        config.consume_fuel(true);
        config.cranelift_opt_level(wasmtime::OptLevel::None);
        let engine = Engine::new(&config)?;
        let module = Module::new(&engine, bytes)?;
        ensure!(module.get_export(ABI).is_some(), "the module does not export {ABI}");
        Ok(Self { engine, module })
    }
}

/// What a VM finds around it.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The host's habits.
    pub personality: Personality,
    /// Where call-outs may go.
    pub targets: Vec<String>,
    /// Whether the foreign function `verify_signature` is there.
    pub native_signatures: bool,
    /// The time, which only [`Vm::advance`] moves.
    pub now: SystemTime,
}

/// One VM with its root context.
pub struct Vm {
    store: Store<State>,
    instance: Instance,
    next_context: u32,
}

/// A stream of a [`Vm`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(u32);

impl Vm {
    /// Instantiates `filter`, makes the root context and runs `on_vm_start`.
    pub fn start(filter: &Filter, around: &Surroundings) -> Result<Self> {
        let now = around.now.duration_since(UNIX_EPOCH)?;
        let state = State {
            personality: around.personality,
            guest: None,
            log: Vec::new(),
            counts: BTreeMap::new(),
            now_ns: u64::try_from(now.as_nanos())?,
            random: 0x9e37_79b9_7f4a_7c15,
            configuration: Vec::new(),
            streams: BTreeMap::new(),
            effective: 1,
            root: 1,
            targets: around.targets.iter().cloned().collect(),
            calls: BTreeMap::new(),
            next_token: 1,
            answer: None,
            properties: BTreeMap::new(),
            shared: BTreeMap::new(),
            metrics: Vec::new(),
            native_signatures: around.native_signatures,
            tick_ms: 0,
        };
        let mut linker = Linker::new(&filter.engine);
        imports::link(&mut linker, &filter.module)?;
        wasi::link(&mut linker)?;
        let mut store = Store::new(&filter.engine, state);
        store.set_fuel(FUEL_PER_CALLBACK)?;
        let instance = linker.instantiate(&mut store, &filter.module)?;
        let memory = instance.get_memory(&mut store, "memory").context("no memory exported")?;
        let allocate = instance
            .get_func(&mut store, "proxy_on_memory_allocate")
            .context("proxy_on_memory_allocate is not exported")?;
        store.data_mut().guest = Some(Guest { memory, allocate });
        let mut vm = Self { store, instance, next_context: 2 };
        vm.call::<_, ()>("_initialize", ())?;
        let root = vm.store.data().root;
        vm.call::<_, ()>("proxy_on_context_create", (root, 0_u32))?;
        let started: Option<u32> = vm.call("proxy_on_vm_start", (root, 0_u32))?;
        ensure!(started != Some(0), "on_vm_start refused");
        Ok(vm)
    }

    /// Hands `document` to `on_configure`; whether it was taken.
    pub fn configure(&mut self, document: &str) -> Result<bool> {
        let root = self.store.data().root;
        self.store.data_mut().configuration = document.as_bytes().to_vec();
        let size = u32::try_from(document.len())?;
        self.store.data_mut().effective = root;
        let taken: Option<u32> = self.call("proxy_on_configure", (root, size))?;
        Ok(taken != Some(0))
    }

    /// A request arrives: makes its context and runs `on_request_headers`.
    pub fn request(&mut self, headers: Headers, end_of_stream: bool) -> Result<StreamId> {
        let id = self.next_context;
        self.next_context += 1;
        let mut request = headers;
        let state = self.store.data_mut();
        if state.personality.lower_case_names {
            request.lower_case_names();
        }
        let end = end_of_stream && state.personality.end_of_stream_known;
        let count = u32::try_from(request.len())?;
        let stream = Stream {
            request,
            trailers: Headers::default(),
            response: Headers::default(),
            standing: Standing::Held,
            resume: false,
            reply: None,
        };
        state.streams.insert(id, stream);
        let root = state.root;
        state.effective = root;
        self.call::<_, ()>("proxy_on_context_create", (id, root))?;
        self.store.data_mut().effective = id;
        let action: Option<u32> =
            self.call("proxy_on_request_headers", (id, count, u32::from(end)))?;
        if let Some(stream) = self.store.data_mut().stream()
            && action.unwrap_or(0) == 0
        {
            stream.resume = true;
        }
        self.settle(id)?;
        Ok(StreamId(id))
    }

    /// Answers a call-out, which runs `on_http_call_response`.
    pub fn answer(&mut self, token: u32, answer: Answer) -> Result<()> {
        let state = self.store.data_mut();
        let call = state.calls.remove(&token).with_context(|| format!("no call-out {token}"))?;
        let (headers, body) = (answer.headers.len(), answer.body.len());
        state.answer = Some(answer);
        state.effective = call.context;
        let sizes = (state.root, token, u32::try_from(headers)?, u32::try_from(body)?, 0_u32);
        let result = self.call::<_, ()>("proxy_on_http_call_response", sizes);
        self.store.data_mut().answer = None;
        result?;
        // Every stream: an answer may release others that waited for it.
        let streams: Vec<u32> = self.store.data().streams.keys().copied().collect();
        for id in streams {
            self.settle(id)?;
        }
        Ok(())
    }

    /// A piece of the client's body arrives at `on_request_body`; whether the filter lets it go on. A host that lets
    /// bodies run ahead takes that for the held headers as well.
    pub fn body(&mut self, stream: StreamId, bytes: u32, ended: bool) -> Result<bool> {
        self.store.data_mut().effective = stream.0;
        let arguments = (stream.0, bytes, u32::from(ended));
        let action = self.call::<_, u32>("proxy_on_request_body", arguments)?;
        // A host does not ask a module that exports no such callback.
        Ok(action.is_none_or(|action| action == 0))
    }

    /// The client's trailers pass through `on_request_trailers`; what the upstream gets of them.
    pub fn trailers(&mut self, stream: StreamId, trailers: Headers) -> Result<Headers> {
        let mut trailers = trailers;
        trailers.lower_case_names();
        let count = u32::try_from(trailers.len())?;
        self.store.data_mut().effective = stream.0;
        self.stream(stream.0)?.trailers = trailers;
        self.call::<_, u32>("proxy_on_request_trailers", (stream.0, count))?;
        Ok(std::mem::take(&mut self.stream(stream.0)?.trailers))
    }

    /// The upstream's response headers pass through `on_response_headers`; what the client gets.
    pub fn respond(&mut self, stream: StreamId, headers: Headers) -> Result<Headers> {
        let mut headers = headers;
        headers.lower_case_names();
        let count = u32::try_from(headers.len())?;
        self.store.data_mut().effective = stream.0;
        self.stream(stream.0)?.response = headers;
        self.call::<_, u32>("proxy_on_response_headers", (stream.0, count, 0_u32))?;
        Ok(std::mem::take(&mut self.stream(stream.0)?.response))
    }

    /// The stream ends, for whatever reason: `on_done`, `on_log`, `on_delete`, and its open call-outs are gone.
    pub fn finish(&mut self, stream: StreamId) -> Result<()> {
        self.store.data_mut().effective = stream.0;
        self.call::<_, u32>("proxy_on_done", stream.0)?;
        self.call::<_, ()>("proxy_on_log", stream.0)?;
        self.call::<_, ()>("proxy_on_delete", stream.0)?;
        let state = self.store.data_mut();
        state.streams.remove(&stream.0);
        state.calls.retain(|_, call| call.context != stream.0);
        Ok(())
    }

    /// Where a stream stands.
    pub fn standing(&self, stream: StreamId) -> Result<&Standing> {
        let stream = self.store.data().streams.get(&stream.0);
        stream.map(|stream| &stream.standing).context("no such stream")
    }

    /// The call-outs that wait for an answer, in the order in which they were asked for.
    pub fn calls(&self) -> Vec<Call> {
        self.store.data().calls.values().cloned().collect()
    }

    /// What the filter logged since the last time.
    pub fn take_log(&mut self) -> Vec<Line> {
        std::mem::take(&mut self.store.data_mut().log)
    }

    /// The host calls since the last time.
    pub fn take_counts(&mut self) -> BTreeMap<&'static str, Count> {
        std::mem::take(&mut self.store.data_mut().counts)
    }

    /// The filter's metrics.
    pub fn metrics(&self) -> &[Metric] {
        &self.store.data().metrics
    }

    /// A property that the filter set, by its path.
    pub fn property(&self, path: &str) -> Option<&[u8]> {
        self.store.data().properties.get(path.as_bytes()).map(Vec::as_slice)
    }

    /// Sets a property that the filter may read; path elements are separated by NUL.
    pub fn set_property(&mut self, path: &str, value: &[u8]) {
        self.store.data_mut().properties.insert(path.as_bytes().to_vec(), value.to_vec());
    }

    /// Moves the clock.
    pub fn advance(&mut self, by: Duration) -> Result<()> {
        self.store.data_mut().now_ns += u64::try_from(by.as_nanos())?;
        Ok(())
    }

    /// The size of the VM's memory.
    pub fn memory_bytes(&self) -> usize {
        self.store.data().guest.map_or(0, |guest| guest.memory.data_size(&self.store))
    }

    /// What the callback asked for takes effect now that it has returned.
    fn settle(&mut self, id: u32) -> Result<()> {
        let local = self.store.data().personality.local_reply_passes_filter;
        let stream = self.stream(id)?;
        if stream.standing != Standing::Held {
            return Ok(());
        }
        if let Some(mut reply) = stream.reply.clone() {
            if local {
                reply.headers = self.respond(StreamId(id), reply.headers)?;
            }
            self.stream(id)?.standing = Standing::Replied(reply);
        } else if stream.resume {
            stream.standing = Standing::Forwarded(stream.request.clone());
        }
        Ok(())
    }

    fn stream(&mut self, id: u32) -> Result<&mut Stream> {
        self.store.data_mut().streams.get_mut(&id).context("no such stream")
    }

    /// Calls an export if it is there; the stripped module lacks the callbacks that it does not use.
    fn call<P, R>(&mut self, name: &'static str, parameters: P) -> Result<Option<R>>
    where
        P: wasmtime::WasmParams,
        R: wasmtime::WasmResults,
    {
        let Some(function) = self.instance.get_func(&mut self.store, name) else {
            return Ok(None);
        };
        self.store.set_fuel(FUEL_PER_CALLBACK)?;
        let function = function.typed::<P, R>(&self.store)?;
        match function.call(&mut self.store, parameters) {
            Ok(result) => Ok(Some(result)),
            Err(error) => {
                let backtrace = error.downcast_ref::<WasmBacktrace>().map(ToString::to_string);
                let log = &self.store.data().log;
                let last = log.last().map(|line| format!(" ({})", line.text)).unwrap_or_default();
                Err(Trap {
                    callback: name,
                    cause: format!("{}{last}", error.root_cause()),
                    backtrace: backtrace.unwrap_or_default(),
                }
                .into())
            }
        }
    }
}
