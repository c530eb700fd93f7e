//! A proxy-wasm host on wasmtime: loads the compiled filter and plays Envoy for it, one VM per worker.
//! Time stands still unless a test moves it, randomness is a fixed sequence, call-outs are data that a test answers.
//! VMs with the same [`Host`] are one process: they share its clocks and, under the same `vm_id`, its shared data.
//! Knows nothing of what the filter decides.

mod body;
mod filter;
mod foreign;
mod guest;
mod headers;
mod host;
mod imports;
mod personality;
mod response;
mod state;
#[cfg(test)]
mod tests;
mod wasi;

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, ensure};
use wasmtime::{Instance, Linker, Store, WasmBacktrace};

use self::state::{Guest, State, Stream};
pub use self::{
    filter::{Filter, Trap},
    headers::Headers,
    host::{CasMismatch, Host},
    personality::{ENVOY, Personality},
    response::Delivered,
    state::{Answer, Call, Count, Line, Metric, Reply, Standing},
};

/// What one callback may spend. An endless loop would hold an Envoy worker for ever; here it is a trap.
const FUEL_PER_CALLBACK: u64 = 2_000_000_000;

/// What a VM finds around it.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The host's habits.
    pub personality: Personality,
    /// Where call-outs may go.
    pub targets: Vec<String>,
    /// Whether the foreign function `verify_signature` is there.
    pub native_signatures: bool,
    /// The process that the VM lives in.
    pub host: Host,
    /// The name space of its shared data.
    pub vm_id: String,
    /// The environment variables that the configuration gives the VM.
    pub environment: Vec<(String, String)>,
}

impl Surroundings {
    /// Envoy with `verify_signature` in a process of its own; call-outs go nowhere.
    pub fn at(now: SystemTime) -> Self {
        Self {
            personality: ENVOY,
            targets: Vec::new(),
            native_signatures: true,
            host: Host::at(now),
            vm_id: "suite".to_owned(),
            environment: Vec::new(),
        }
    }
}

/// One VM with its root context.
pub struct Vm {
    filter: Filter,
    around: Surroundings,
    store: Store<State>,
    instance: Instance,
    next_context: u32,
    dead: bool,
}

/// A stream of a [`Vm`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(u32);

impl Vm {
    /// Instantiates `filter`, makes the root context and runs `on_vm_start`.
    pub fn start(filter: &Filter, around: &Surroundings) -> Result<Self> {
        let state = State {
            personality: around.personality,
            guest: None,
            log: Vec::new(),
            counts: BTreeMap::new(),
            host: around.host.clone(),
            vm_id: around.vm_id.clone(),
            environment: around.environment.clone(),
            random: around.host.seed(),
            configuration: Vec::new(),
            streams: BTreeMap::new(),
            effective: 1,
            root: 1,
            targets: around.targets.iter().cloned().collect(),
            calls: BTreeMap::new(),
            next_token: 1,
            answer: None,
            properties: BTreeMap::new(),
            metrics: Vec::new(),
            native_signatures: around.native_signatures,
            tick: Duration::ZERO,
            next_tick: None,
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
        let (filter, around) = (filter.clone(), around.clone());
        let mut vm = Self { filter, around, store, instance, next_context: 2, dead: false };
        vm.call::<_, ()>("_initialize", ())?;
        let root = vm.store.data().root;
        vm.call::<_, ()>("proxy_on_context_create", (root, 0_u32))?;
        let started: Option<u32> = vm.call("proxy_on_vm_start", (root, 0_u32))?;
        ensure!(started != Some(0), "on_vm_start refused");
        Ok(vm)
    }

    /// Its linear memory.
    pub fn memory(&mut self) -> Result<&mut [u8]> {
        let guest = self.store.data().guest.as_ref().context("no memory")?;
        let memory = guest.memory;
        Ok(memory.data_mut(&mut self.store))
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

    /// A new VM in the place of this one, as `FAIL_RELOAD` makes it after a trap: with the same surroundings and the
    /// last configuration, and with nothing else; whether it took the configuration.
    pub fn reload(&mut self) -> Result<bool> {
        let document = String::from_utf8(self.store.data().configuration.clone())?;
        *self = Self::start(&self.filter, &self.around)?;
        self.configure(&document)
    }

    /// Whether a callback has trapped: nothing runs in this VM any more.
    pub fn is_dead(&self) -> bool {
        self.dead
    }

    /// A request arrives: makes its context and runs `on_request_headers`.
    pub fn request(&mut self, headers: Headers, end_of_stream: bool) -> Result<StreamId> {
        self.request_after(&[], headers, end_of_stream)
    }

    /// As [`Vm::request`], behind filters that have set this filter state.
    pub fn request_after(
        &mut self,
        filter_state: &[(&str, &[u8])],
        headers: Headers,
        end_of_stream: bool,
    ) -> Result<StreamId> {
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
            body: Vec::new(),
            response: None,
            response_body: Vec::new(),
            standing: Standing::Held,
            resume: false,
            reply: None,
            filter_state: filter_state
                .iter()
                .map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec()))
                .collect(),
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

    /// Answers a call-out, which runs `on_http_call_response`, whether or not its stream is still there.
    pub fn answer(&mut self, token: u32, answer: Answer) -> Result<()> {
        ensure!(self.store.data().calls.contains_key(&token), "no call-out {token}");
        self.deliver(token, answer)
    }

    /// As [`Vm::answer`], and also for a call-out that nobody waits for: answered before, or asked by a VM that is
    /// gone. No sound host does that.
    pub fn deliver(&mut self, token: u32, answer: Answer) -> Result<()> {
        let state = self.store.data_mut();
        state.calls.remove(&token);
        let (headers, body) = (answer.headers.len(), answer.body.len());
        state.answer = Some(answer);
        // A call-out belongs to the root context in Envoy: its answer outlives the stream that asked.
        state.effective = state.root;
        let sizes = (state.root, token, u32::try_from(headers)?, u32::try_from(body)?, 0_u32);
        let result = self.call::<_, ()>("proxy_on_http_call_response", sizes);
        self.store.data_mut().answer = None;
        result?;
        // An answer may release other streams that waited for it.
        self.settle_all()
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
        self.stream(stream.0)?.response = Some(headers);
        self.call::<_, u32>("proxy_on_response_headers", (stream.0, count, 0_u32))?;
        Ok(self.stream(stream.0)?.response.take().unwrap_or_default())
    }

    /// The stream ends, for whatever reason: `on_done`, `on_log`, `on_delete`. Its call-outs go on.
    pub fn finish(&mut self, stream: StreamId) -> Result<()> {
        self.store.data_mut().effective = stream.0;
        self.call::<_, u32>("proxy_on_done", stream.0)?;
        self.call::<_, ()>("proxy_on_log", stream.0)?;
        self.call::<_, ()>("proxy_on_delete", stream.0)?;
        let state = self.store.data_mut();
        state.streams.remove(&stream.0);
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

    /// The filter state that a stream has under `name`, from this filter or one before it. Path elements are
    /// separated by NUL.
    pub fn filter_state(&self, stream: StreamId, name: &str) -> Option<&[u8]> {
        let stream = self.store.data().streams.get(&stream.0)?;
        stream.filter_state.get(name.as_bytes()).map(Vec::as_slice)
    }

    /// What the host says of every connection, such as `source\0address`; path elements are separated by NUL.
    pub fn set_property(&mut self, path: &str, value: &[u8]) {
        self.store.data_mut().properties.insert(path.as_bytes().to_vec(), value.to_vec());
    }

    /// The process that the VM lives in.
    pub fn host(&self) -> &Host {
        &self.around.host
    }

    /// How often the root context is ticked, if it asked for that.
    pub fn tick_period(&self) -> Option<Duration> {
        let state = self.store.data();
        state.next_tick.map(|_| state.tick)
    }

    /// Time passes, and the ticks that fall due are given at their times. See [`advance`] for several VMs.
    pub fn advance(&mut self, by: Duration) -> Result<()> {
        advance(&mut [self], by)
    }

    /// The size of the VM's memory.
    pub fn memory_bytes(&self) -> usize {
        self.store.data().guest.map_or(0, |guest| guest.memory.data_size(&self.store))
    }

    /// The next tick of the root context.
    fn tick(&mut self) -> Result<()> {
        let state = self.store.data_mut();
        let root = state.root;
        state.effective = root;
        let result = self.call::<_, ()>("proxy_on_tick", root);
        let state = self.store.data_mut();
        // A timer that is late is late for good: the next tick is a whole period away.
        state.next_tick = state.next_tick.map(|_| state.host.elapsed() + state.tick);
        result?;
        self.settle_all()
    }

    fn settle_all(&mut self) -> Result<()> {
        let streams: Vec<u32> = self.store.data().streams.keys().copied().collect();
        streams.into_iter().try_for_each(|id| self.settle(id))
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
        if self.dead {
            let cause = "the VM is dead since an earlier trap".to_owned();
            return Err(Trap { callback: name, cause, backtrace: String::new() }.into());
        }
        let Some(function) = self.instance.get_func(&mut self.store, name) else {
            return Ok(None);
        };
        self.store.set_fuel(FUEL_PER_CALLBACK)?;
        let function = function.typed::<P, R>(&self.store)?;
        match function.call(&mut self.store, parameters) {
            Ok(result) => Ok(Some(result)),
            Err(error) => {
                self.dead = true;
                self.store.data_mut().next_tick = None;
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

/// Time passes for VMs of one process; the ticks that fall due are given in the order of their times.
pub fn advance(vms: &mut [&mut Vm], by: Duration) -> Result<()> {
    let Some(host) = vms.first().map(|vm| vm.host().clone()) else { return Ok(()) };
    let end = host.elapsed() + by;
    loop {
        let due = vms.iter_mut().filter_map(|vm| Some((vm.store.data().next_tick?, vm)));
        match due.min_by_key(|(at, _)| *at) {
            Some((at, vm)) if at <= end => {
                host.pass_until(at);
                vm.tick()?;
            }
            _ => break,
        }
    }
    host.pass_until(end);
    Ok(())
}
