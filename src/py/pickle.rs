//! The one place that serialises: the interpreter's C pickler with the standard `ForkingPickler`'s reducers.
//!
//! `ForkingPickler` copies two dispatch tables for every message, in Python. Here the picklers are kept and reused, and
//! their dispatch table looks into the very dictionaries `ForkingPickler` reads, so a reducer registered at any time, on
//! either library, counts at once. A program that puts its own class in the place of `ForkingPickler`
//! (`context.reducer = ...`) or patches its methods gets that class called instead. Single numbers
//! and strings need no pickler at all.

use std::sync::LazyLock;

use crossbeam::queue::ArrayQueue;
use pyo3::exceptions::{PyKeyError, PyMemoryError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList, PyType};
use pyo3::{
    buffer::{PyBuffer, PyUntypedBuffer},
    intern,
};
use rsmp_core::frame::scalar as pickled;

use crate::scalar;
use crate::version::Known;

/// Picklers kept for reuse: as many as messages are being pickled at one time, re-entrant ones included.
const KEPT: usize = 8;

/// Output of this size is written straight into the pickler's own buffer; more than this is not kept between messages.
const KEPT_BYTES: usize = 1 << 20;

/// The protocol that can leave buffers out of the pickle.
const APART: u8 = 5;

/// Without a lock, which a fork could copy while another thread holds it.
static IDLE: LazyLock<ArrayQueue<Machine>> = LazyLock::new(|| ArrayQueue::new(KEPT));
/// The same with protocol 5 and a `buffer_callback`.
static IDLE_APART: LazyLock<ArrayQueue<Machine>> = LazyLock::new(|| ArrayQueue::new(KEPT));
static STANDARD: PyOnceLock<Standard> = PyOnceLock::new();
static UNUSED: PyOnceLock<Option<Unused>> = PyOnceLock::new();
/// `ForkingPickler` with its own methods in place.
static UNCHANGED: Known = Known::nothing();

/// What `ForkingPickler` was when rsmp was loaded.
struct Standard {
    /// `multiprocessing.context`, whose name `reduction` a program may replace.
    context: Py<PyAny>,
    class: Py<PyType>,
    /// The class's own `__init__`, `dumps` and `loads`.
    methods: [Py<PyAny>; 3],
    reducers: Py<Reducers>,
    pickler: Py<PyAny>,
    protocol: u8,
    loads: Py<PyAny>,
}

/// The standard `reduction` while nobody has used a name in it, and so nobody has replaced one. Reading does not make it
/// execute then: it imports more than all else that a spawned worker needs.
struct Unused {
    module: Py<PyAny>,
    /// The class it has until then.
    deferred: Py<PyAny>,
    /// The names of `multiprocessing.context`.
    context: Py<PyDict>,
    loads: Py<PyAny>,
}

/// A C pickler, the file it writes to and its two methods.
struct Machine {
    sink: Py<Sink>,
    dump: Py<PyAny>,
    clear_memo: Py<PyAny>,
}

/// A buffer that is not in the pickle.
pub(crate) struct Apart {
    pub(crate) raw: PyUntypedBuffer,
    /// It is an array's of numpy, which takes any buffer for one. Others may count on the `bytearray` of a plain pickle.
    pub(crate) of_numpy: bool,
}

fn is_of_numpy(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = object.py();
    let modules = py.import("sys")?.getattr(intern!(py, "modules"))?;
    match modules.cast::<PyDict>()?.get_item(intern!(py, "numpy"))? {
        Some(numpy) => object.is_instance(&numpy.getattr(intern!(py, "ndarray"))?),
        None => Ok(false),
    }
}

/// The file a pickler writes to.
#[pyclass(module = "rsmp._rsmp")]
#[derive(Default)]
struct Sink {
    bytes: Vec<u8>,
    /// Buffers left out of the pickle, and the shortest to be.
    buffers: Vec<Apart>,
    least: usize,
    /// A buffer was read-only, which protocol 5 keeps and the default protocol does not.
    read_only: bool,
}

#[pymethods]
impl Sink {
    /// The `buffer_callback`: whether the pickler should write the buffer itself.
    fn keep(&mut self, buffer: &Bound<'_, PyAny>) -> PyResult<bool> {
        let view = buffer.call_method0(intern!(buffer.py(), "raw"))?;
        let raw = PyUntypedBuffer::get(&view)?;
        self.read_only |= raw.readonly();
        if raw.readonly() || raw.len_bytes() < self.least {
            return Ok(true);
        }
        let of_numpy = is_of_numpy(&view.getattr(intern!(buffer.py(), "obj"))?)?;
        self.buffers.push(Apart { raw, of_numpy });
        Ok(false)
    }

    fn write(&mut self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        if let Ok(bytes) = data.cast_exact::<PyBytes>() {
            make_room(&mut self.bytes, bytes.as_bytes().len())?;
            self.bytes.extend_from_slice(bytes.as_bytes());
            return Ok(());
        }
        // A long buffer inside the pickle, as it is; `PickleBuffer.raw` takes any that lies in one piece.
        let raw = data.py().import("_pickle")?.getattr("PickleBuffer")?.call1((data,))?.call_method0("raw")?;
        let buffer = PyBuffer::<u8>::get(&raw)?;
        let start = self.bytes.len();
        make_room(&mut self.bytes, buffer.len_bytes())?;
        self.bytes.resize(start + buffer.len_bytes(), 0);
        buffer.copy_to_slice(data.py(), &mut self.bytes[start..])
    }
}

/// The dispatch table of every pickler: `ForkingPickler`'s reducers over those of `copyreg`.
#[pyclass(frozen, module = "rsmp._rsmp")]
struct Reducers {
    extra: Py<PyDict>,
    copyreg: Py<PyDict>,
}

#[pymethods]
impl Reducers {
    fn __getitem__<'py>(&self, class: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = class.py();
        for table in [&self.extra, &self.copyreg] {
            if let Some(reducer) = table.bind(py).get_item(class)? {
                return Ok(reducer);
            }
        }
        Err(PyKeyError::new_err(class.clone().unbind()))
    }
}

/// Appends the pickle of `object` to `out`; when it raises, `out` is as before.
pub(crate) fn dumps(object: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
    let py = object.py();
    let standard = standard(py)?;
    let start = out.len();
    if let Some(class) = standard.replaced(py)? {
        let pickled = class.call_method1(intern!(py, "dumps"), (object,))?;
        let buffer = PyBuffer::<u8>::get(&pickled)?;
        make_room(out, buffer.len_bytes())?;
        out.resize(start + buffer.len_bytes(), 0);
        return buffer.copy_to_slice(py, &mut out[start..]);
    }
    if let Some(value) = scalar::from_object(object)
        && pickled::write(value, standard.protocol, out)
    {
        return Ok(());
    }
    let machine = standard.take(py, &IDLE, Standard::machine)?;
    machine.run(object, out)?;
    give_back(&IDLE, machine);
    Ok(())
}

/// As `dumps`, but writable buffers of at least `least` bytes that the object's reducers offer are not in the pickle; they
/// are returned, in order.
pub(crate) fn dumps_apart(object: &Bound<'_, PyAny>, out: &mut Vec<u8>, least: usize) -> PyResult<Vec<Apart>> {
    let py = object.py();
    let standard = standard(py)?;
    if standard.replaced(py)?.is_some() {
        dumps(object, out)?;
        return Ok(Vec::new());
    }
    let start = out.len();
    let machine = standard.take(py, &IDLE_APART, Standard::machine_apart)?;
    machine.sink.borrow_mut(py).least = least;
    machine.run(object, out)?;
    let (buffers, read_only) = {
        let mut sink = machine.sink.borrow_mut(py);
        (core::mem::take(&mut sink.buffers), core::mem::take(&mut sink.read_only))
    };
    give_back(&IDLE_APART, machine);
    if read_only && standard.protocol < APART {
        // A read-only array is writable after a trip by the default protocol, and so it is here.
        out.truncate(start);
        dumps(object, out)?;
        return Ok(Vec::new());
    }
    Ok(buffers)
}

/// Adds notes that say where in `object` the item is that could not be pickled.
#[cold]
fn explain(error: &PyErr, object: &Bound<'_, PyAny>) {
    let py = object.py();
    let explained =
        py.import("rsmp._pickling").and_then(|module| module.call_method1("explain", (error.value(py), object)));
    // A further error would hide the one that counts.
    drop(explained);
}

fn give_back(idle: &ArrayQueue<Machine>, machine: Machine) {
    // There are enough of them: one more is thrown away.
    let _ = idle.push(machine);
}

impl Machine {
    /// Appends the pickle to `out`; when it raises, `out` is as before.
    fn run(&self, object: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
        let py = object.py();
        let start = out.len();
        core::mem::swap(&mut self.sink.borrow_mut(py).bytes, out);
        let dumped = self.dump.bind(py).call1((object,));
        core::mem::swap(&mut self.sink.borrow_mut(py).bytes, out);
        if let Err(error) = dumped {
            // The caller throws the pickler away, too: its frame may be half written.
            out.truncate(start);
            explain(&error, object);
            return Err(error);
        }
        self.clear_memo.bind(py).call0().map(drop)
    }
}

/// The pickle protocol in use; `None` when a program's own class writes and reads the pickles.
pub(crate) fn protocol(py: Python<'_>) -> PyResult<Option<u8>> {
    let standard = standard(py)?;
    if standard.replaced(py)?.is_some() {
        return Ok(None);
    }
    Ok(Some(standard.protocol))
}

/// The object that `data` is the pickle of.
pub(crate) fn loads<'py>(py: Python<'py>, data: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    if let Some(value) = pickled::read(data)
        && let Reader::Own(_) = reader(py)?
    {
        return scalar::to_object(py, value);
    }
    loads_from(&PyBytes::new(py, data))
}

/// As `loads`, from any object with the buffer protocol; it is let go of when this returns.
pub(crate) fn loads_from<'py>(data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = data.py();
    match reader(py)? {
        Reader::Own(loads) => loads.call1((data,)),
        Reader::Replaced(class) => class.call_method1(intern!(py, "loads"), (data,)),
    }
}

/// The object that `data` is the pickle of, with the buffers that were left out of it, in order.
pub(crate) fn loads_with<'py>(data: &Bound<'py, PyAny>, buffers: &Bound<'py, PyList>) -> PyResult<Bound<'py, PyAny>> {
    let py = data.py();
    let arguments = PyDict::new(py);
    arguments.set_item(intern!(py, "buffers"), buffers)?;
    let loads = match reader(py)? {
        Reader::Own(loads) => loads,
        Reader::Replaced(_) => standard(py)?.loads.bind(py),
    };
    loads.call((data,), Some(&arguments))
}

/// What reads pickles.
enum Reader<'py> {
    /// The interpreter's function.
    Own(&'py Bound<'py, PyAny>),
    /// The class in the place of `ForkingPickler`.
    Replaced(Bound<'py, PyAny>),
}

fn reader(py: Python<'_>) -> PyResult<Reader<'_>> {
    if STANDARD.get(py).is_none()
        && let Some(unused) = UNUSED.get_or_try_init(py, || Unused::find(py))?
        && unused.is_still(py)?
    {
        return Ok(Reader::Own(unused.loads.bind(py)));
    }
    let standard = standard(py)?;
    Ok(standard.replaced(py)?.map_or_else(|| Reader::Own(standard.loads.bind(py)), Reader::Replaced))
}

/// Makes room for `more` bytes: where there is no memory for a message, that is the message's error, not the program's end.
pub(crate) fn make_room(bytes: &mut Vec<u8>, more: usize) -> PyResult<()> {
    bytes.try_reserve(more).map_err(|_| PyMemoryError::new_err(format!("no memory for a message of {more} bytes")))
}

/// Forgets the scratch space of a message that was unusually large.
pub(crate) fn recycle(scratch: &mut Vec<u8>) {
    scratch.clear();
    scratch.shrink_to(KEPT_BYTES);
}

fn standard(py: Python<'_>) -> PyResult<&Standard> {
    STANDARD.get_or_try_init(py, || Standard::load(py))
}

impl Unused {
    fn find(py: Python<'_>) -> PyResult<Option<Self>> {
        let borrowed = py.import("rsmp._stdlib")?;
        let (module, deferred) =
            (borrowed.call_method1("load", ("reduction",))?, py.import("rsmp._deferred")?.getattr("Deferred")?);
        let loads = py.import("_pickle")?.getattr("loads")?;
        if !known_loads(py)?.is(&loads) {
            return Ok(None);
        }
        let context = borrowed.call_method1("load", ("context",))?.getattr("__dict__")?.cast_into::<PyDict>()?;
        Ok(Some(Self {
            module: module.unbind(),
            deferred: deferred.unbind(),
            context: context.unbind(),
            loads: loads.unbind(),
        }))
    }

    /// Whether the module is as it was, and is what the context knows by its name.
    fn is_still(&self, py: Python<'_>) -> PyResult<bool> {
        let module = self.module.bind(py);
        Ok(module.get_type().is(&self.deferred)
            && self.context.bind(py).get_item(intern!(py, "reduction"))?.is_some_and(|known| known.is(module)))
    }
}

/// What `pickle.loads` is, without the import of `pickle` that nobody has asked for: re and enum come with it.
fn known_loads(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let own = py.import("_pickle")?.getattr("loads")?;
    let module = py.import("rsmp._deferred")?.call_method1("executed", ("pickle",))?;
    // It has none while another thread imports it.
    Ok(module.getattr_opt("loads")?.unwrap_or(own))
}

/// The protocol of a pickler that is not told one: the second byte of all it writes.
fn default_protocol(pickle: &Bound<'_, PyAny>) -> PyResult<u8> {
    let written = pickle.call_method1("dumps", (pickle.py().None(),))?;
    written.cast::<PyBytes>()?.as_bytes().get(1).copied().ok_or_else(|| PyRuntimeError::new_err("an empty pickle"))
}

const METHODS: [&str; 3] = ["__init__", "dumps", "loads"];

impl Standard {
    fn load(py: Python<'_>) -> PyResult<Self> {
        let borrowed = py.import("rsmp._stdlib")?;
        let load = borrowed.getattr("load")?;
        let module = load.call1(("reduction",))?;
        // Bound to the class when the module was executed, whatever has the name `ForkingPickler` by now.
        let class = module.getattr("register")?.getattr("__self__")?.cast_into::<PyType>()?;
        let pickle = py.import("_pickle")?;
        let [init, dumps, loads] = own_methods(&class)?;
        let replaced = |function: &Bound<'_, PyAny>| -> PyResult<bool> {
            borrowed.call_method1("replaced", (&module, function))?.is_truthy()
        };
        let known = known_loads(py)?;
        let untouched = loads.is(&known)
            && !replaced(&init)?
            && !replaced(&dumps.getattr_opt("__func__")?.unwrap_or(dumps.clone()))?;
        // With others in their place already, nothing is what it was.
        let methods = if untouched { [init, dumps, loads].map(Bound::unbind) } else { [(); 3].map(|()| py.None()) };
        let reducers = Reducers {
            extra: class.getattr("_extra_reducers")?.cast_into::<PyDict>()?.unbind(),
            copyreg: class.getattr("_copyreg_dispatch_table")?.cast_into::<PyDict>()?.unbind(),
        };
        Ok(Self {
            context: load.call1(("context",))?.unbind(),
            class: class.unbind(),
            methods,
            reducers: Py::new(py, reducers)?,
            pickler: pickle.getattr("Pickler")?.unbind(),
            protocol: default_protocol(&pickle)?,
            loads: known.unbind(),
        })
    }

    /// The class that stands in the place of `ForkingPickler`, if it is not the one this file reproduces.
    fn replaced<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let reduction = self.context.bind(py).getattr(intern!(py, "reduction"))?;
        let class = reduction.getattr(intern!(py, "ForkingPickler"))?;
        if class.is(&self.class) {
            if UNCHANGED.is(self.class.bind(py)) {
                return Ok(None);
            }
            let methods = own_methods(self.class.bind(py))?;
            if methods.iter().zip(&self.methods).all(|(now, then)| now.is(then)) {
                UNCHANGED.remember(self.class.bind(py));
                return Ok(None);
            }
        }
        Ok(Some(class))
    }

    fn take(
        &self,
        py: Python<'_>,
        idle: &ArrayQueue<Machine>,
        make: fn(&Self, Python<'_>) -> PyResult<Machine>,
    ) -> PyResult<Machine> {
        idle.pop().map_or_else(|| make(self, py), Ok)
    }

    fn machine(&self, py: Python<'_>) -> PyResult<Machine> {
        let sink = Bound::new(py, Sink::default())?;
        let pickler = self.pickler.bind(py).call1((&sink, self.protocol))?;
        self.finish(&pickler, sink)
    }

    fn machine_apart(&self, py: Python<'_>) -> PyResult<Machine> {
        let sink = Bound::new(py, Sink::default())?;
        let arguments = PyDict::new(py);
        arguments.set_item(intern!(py, "buffer_callback"), sink.getattr(intern!(py, "keep"))?)?;
        let pickler = self.pickler.bind(py).call((&sink, APART), Some(&arguments))?;
        self.finish(&pickler, sink)
    }

    fn finish(&self, pickler: &Bound<'_, PyAny>, sink: Bound<'_, Sink>) -> PyResult<Machine> {
        let py = pickler.py();
        pickler.setattr(intern!(py, "dispatch_table"), &self.reducers)?;
        Ok(Machine {
            dump: pickler.getattr(intern!(py, "dump"))?.unbind(),
            clear_memo: pickler.getattr(intern!(py, "clear_memo"))?.unbind(),
            sink: sink.unbind(),
        })
    }
}

/// The class's `__init__`, `dumps` and `loads` as they lie in its dictionary, unbound.
fn own_methods<'py>(class: &Bound<'py, PyType>) -> PyResult<[Bound<'py, PyAny>; 3]> {
    let names = class.getattr(intern!(class.py(), "__dict__"))?;
    let [init, dumps, loads] = METHODS;
    Ok([names.get_item(init)?, names.get_item(dumps)?, names.get_item(loads)?])
}
