/* The native kernel, second part: what is done for every entry before it is sealed.

   As in _kernel.c, each function has a twin in archive/twin.py that says in Python what it does, and nothing here
   decides anything.  What is not of the usual type is encoded, or worked out, by the Python that was given for it.
   All of this runs with the GIL held: it reads and makes objects. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

enum { PREFIX = 8, IDENTIFIER = 16, FIRST_ROOM = 512, GUESSES = 4 };

static PyObject *name_kind, *name_subject, *name_payload, *name_received, *name_source, *name_sender, *name_form, *name_keys,
    *name_extra, *name_id, *name_number, *name_tag_key, *name_data_key;

/* --- ids ------------------------------------------------------------------------------------------------- */

/* Return where `wanted` stands in sorted numbers, or would.  Hashes are spread evenly, so where one stands can nearly be
   computed; a few such guesses come close, and what is left is searched in growing steps, so that numbers that are
   not spread evenly cost time and nothing else. */
static Py_ssize_t place_of(const uint64_t *sorted, Py_ssize_t count, uint64_t wanted) {
    Py_ssize_t at = (Py_ssize_t)((unsigned __int128)wanted * (uint64_t)count >> 64);
    for (int i = 0; i < GUESSES; i++) {
        uint64_t seen = sorted[at];
        uint64_t apart = seen > wanted ? seen - wanted : wanted - seen;
        Py_ssize_t step = (Py_ssize_t)((unsigned __int128)apart * (uint64_t)count >> 64);
        if (!step) break;
        at = seen > wanted ? (step > at ? 0 : at - step) : (step > count - 1 - at ? count - 1 : at + step);
    }
    Py_ssize_t low = at, high = at, step = 1; /* soon: sorted[low - 1] < wanted <= sorted[high] */
    if (sorted[at] < wanted) {
        for (low = high = at + 1; high < count && sorted[high] < wanted; step *= 2) low = high + 1, high = low + step;
        if (high > count) high = count;
    } else {
        for (; low > 0 && sorted[low - 1] >= wanted; step *= 2) high = low - 1, low = high > step ? high - step : 0;
    }
    while (low < high) {
        Py_ssize_t middle = low + (high - low) / 2;
        if (sorted[middle] < wanted) low = middle + 1;
        else high = middle;
    }
    return low;
}

static int found_at(PyObject *found, Py_ssize_t which, Py_ssize_t at) {
    PyObject *pair = Py_BuildValue("nn", which, at);
    int good = pair && PyList_Append(found, pair) == 0;
    Py_XDECREF(pair);
    return good;
}

static PyObject *find_ids(PyObject *self, PyObject *arguments) {
    Py_buffer sorted;
    PyObject *sequence, *items = NULL, *found = NULL;
    if (!PyArg_ParseTuple(arguments, "y*O", &sorted, &sequence)) return NULL;
    if (sorted.len % PREFIX || (sorted.len && (uintptr_t)sorted.buf % PREFIX)) {
        PyErr_Format(PyExc_TypeError, "%zd bytes, not a whole number of words", sorted.len);
        goto end;
    }
    if (!(items = PySequence_Tuple(sequence)) || !(found = PyList_New(0))) goto end;
    const uint64_t *words = sorted.buf;
    Py_ssize_t count = sorted.len / PREFIX;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(items); i++) {
        PyObject *one = PyTuple_GET_ITEM(items, i);
        if (!PyBytes_Check(one) || PyBytes_GET_SIZE(one) != IDENTIFIER) {
            PyErr_Format(PyExc_ValueError, "item %zd is no id hash of 16 bytes", i);
            Py_CLEAR(found);
            break;
        }
        const unsigned char *id = (const unsigned char *)PyBytes_AS_STRING(one);
        uint64_t wanted = 0;
        for (int byte = 0; byte < PREFIX; byte++) wanted = wanted << 8 | id[byte];
        if (!count) continue;
        for (Py_ssize_t at = place_of(words, count, wanted); found && at < count && words[at] == wanted; at++)
            if (!found_at(found, i, at)) Py_CLEAR(found);
        if (!found) break;
    }
end:
    PyBuffer_Release(&sorted);
    Py_XDECREF(items);
    return found;
}

/* --- a text that grows ----------------------------------------------------------------------------------- */

typedef struct {
    unsigned char *data;
    size_t size, room;
} Text;

static int make_room(Text *text, size_t more) {
    if (more <= text->room - text->size) return 1;
    size_t room = text->room ? text->room : FIRST_ROOM;
    while (room - text->size < more) {
        if (room > PY_SSIZE_T_MAX / 2) { PyErr_NoMemory(); return 0; }
        room *= 2;
    }
    unsigned char *data = PyMem_Realloc(text->data, room);
    if (!data) { PyErr_NoMemory(); return 0; }
    text->data = data, text->room = room;
    return 1;
}

static int put(Text *text, const void *data, size_t size) {
    if (!make_room(text, size)) return 0;
    memcpy(text->data + text->size, data, size);
    text->size += size;
    return 1;
}

/* Write a number of `width` bytes, big-endian, behind a byte that says what it is. */
static int put_number(Text *text, unsigned char kind, uint64_t value, int width) {
    unsigned char bytes[9] = {kind};
    for (int i = width; i > 0; i--, value >>= 8) bytes[i] = (unsigned char)value;
    return put(text, bytes, (size_t)width + 1);
}

static int put_bytes_of(Text *text, PyObject *bytes) {
    int good = 0;
    if (bytes && !PyBytes_Check(bytes)) PyErr_SetString(PyExc_TypeError, "an encoder gave no bytes");
    else if (bytes) good = put(text, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
    return good;
}

/* --- MessagePack: what is usual, here; the rest, by `encode` --------------------------------------------- */

static int put_encoded(Text *text, PyObject *value, PyObject *encode) {
    PyObject *bytes = PyObject_CallOneArg(encode, value);
    int good = put_bytes_of(text, bytes);
    Py_XDECREF(bytes);
    return good;
}

static int put_text(Text *text, PyObject *value, PyObject *encode) {
    if (!PyUnicode_CheckExact(value)) return put_encoded(text, value, encode);
    Py_ssize_t length;
    const char *utf8 = PyUnicode_AsUTF8AndSize(value, &length);
    if (!utf8) return 0;
    size_t size = (size_t)length;
    int good = size < 32 ? put_number(text, (unsigned char)(0xa0 | size), 0, 0)
               : size < 256 ? put_number(text, 0xd9, size, 1)
               : size < 65536 ? put_number(text, 0xda, size, 2)
                              : size <= UINT32_MAX && put_number(text, 0xdb, size, 4);
    if (!good && !PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "a text of more than 4 GiB");
    return good && put(text, utf8, size);
}

static int put_count(Text *text, PyObject *value, PyObject *encode) {
    if (!PyLong_CheckExact(value)) return put_encoded(text, value, encode);
    int beyond;
    long long number = PyLong_AsLongLongAndOverflow(value, &beyond);
    if (beyond || number < 0) return put_encoded(text, value, encode);
    return number < 128 ? put_number(text, (unsigned char)number, 0, 0)
           : number < 256 ? put_number(text, 0xcc, (uint64_t)number, 1)
           : number < 65536 ? put_number(text, 0xcd, (uint64_t)number, 2)
           : number <= UINT32_MAX ? put_number(text, 0xce, (uint64_t)number, 4)
                                  : put_number(text, 0xcf, (uint64_t)number, 8);
}

/* Write `extra`, with the id in it where there is one. */
static int put_extra(Text *text, PyObject *extra, PyObject *id, PyObject *encode) {
    if (id == Py_None) return PyDict_CheckExact(extra) && !PyDict_GET_SIZE(extra) ? put(text, "\x80", 1)
                                                                                 : put_encoded(text, extra, encode);
    if (PyDict_CheckExact(extra) && !PyDict_GET_SIZE(extra)) return put(text, "\x81\xa2id", 4) && put_text(text, id, encode);
    if (!PyDict_Check(extra)) {
        PyErr_SetString(PyExc_TypeError, "what is extra is not a dict");
        return 0;
    }
    PyObject *both = PyDict_New();
    int good = both && PyDict_Update(both, extra) == 0 && PyDict_SetItem(both, name_id, id) == 0 &&
               put_encoded(text, both, encode);
    Py_XDECREF(both);
    return good;
}

/* --- drafts ---------------------------------------------------------------------------------------------- */

enum { SUBJECT, RECEIVED, SOURCE, SENDER, FORM, KIND, KEYS, EXTRA, ID, PAYLOAD, NUMBER, TAG_KEY, DATA_KEY, PARTS };

typedef struct {
    PyObject *drafts, *remembered, *learn, *encode; /* borrowed */
    Text text;
} Work;

/* Write what entries have in common that share what is remembered; return 1, 0 where that is unusual, or -1. */
static int put_common(Text *text, PyObject *const *part) {
    int beyond;
    PyObject *field, *value, *keys = part[KEYS];
    if (!PyLong_CheckExact(part[KIND]) || !PyLong_CheckExact(part[NUMBER]) || !PyDict_CheckExact(keys)) return 0;
    long long kind = PyLong_AsLongLongAndOverflow(part[KIND], &beyond);
    if (beyond || kind < 0 || kind > 255) return 0;
    long long number = PyLong_AsLongLongAndOverflow(part[NUMBER], &beyond);
    if (beyond || number < 0) return 0;
    if (!put_number(text, (unsigned char)kind, (uint64_t)number, 8)) return -1;
    for (Py_ssize_t at = 0; PyDict_Next(keys, &at, &field, &value);) {
        if (!PyUnicode_CheckExact(field) || !PyUnicode_CheckExact(value)) return 0;
        if (!put_text(text, field, NULL) || !put_text(text, value, NULL)) return -1;
    }
    return 1;
}

/* Return what is remembered of entries like this one, or learned of it now; a new reference. */
static PyObject *shared_of(Work *work, PyObject *submission, PyObject *const *part) {
    work->text.size = 0;
    int usual = put_common(&work->text, part);
    if (usual < 0) return NULL;
    PyObject *key = usual ? PyBytes_FromStringAndSize((char *)work->text.data, (Py_ssize_t)work->text.size) : Py_NewRef(Py_None);
    if (!key) return NULL;
    PyObject *shared = usual ? PyDict_GetItemWithError(work->remembered, key) : NULL;
    if (shared) Py_INCREF(shared);
    else if (!PyErr_Occurred()) shared = PyObject_CallFunctionObjArgs(work->learn, key, submission, part[NUMBER], NULL);
    Py_DECREF(key);
    if (shared && (!PyTuple_Check(shared) || PyTuple_GET_SIZE(shared) < 3 || !PyBytes_Check(PyTuple_GET_ITEM(shared, 0)) ||
                   !PyBytes_Check(PyTuple_GET_ITEM(shared, 1)) || !PyBytes_Check(PyTuple_GET_ITEM(shared, 2)))) {
        PyErr_SetString(PyExc_TypeError, "what is remembered is not three bytes objects");
        Py_CLEAR(shared);
    }
    return shared;
}

static PyObject *header_of(Work *work, PyObject *const *part, PyObject *sequence, PyObject *others) {
    Text *text = &work->text;
    PyObject *encode = work->encode;
    text->size = 0;
    int good = put(text, "\x98", 1) && put_text(text, part[SUBJECT], encode) && put_count(text, sequence, encode) &&
               put_count(text, part[RECEIVED], encode) && put_text(text, part[SOURCE], encode) &&
               put_text(text, part[SENDER], encode) && put_text(text, part[FORM], encode) && put_bytes_of(text, others) &&
               put_extra(text, part[EXTRA], part[ID], encode);
    return good ? PyBytes_FromStringAndSize((char *)text->data, (Py_ssize_t)text->size) : NULL;
}

static PyObject *joined(PyObject *prefix, PyObject *identifier, PyObject *routes) {
    if (!PyBytes_Check(identifier)) {
        PyErr_SetString(PyExc_TypeError, "an id hash is not bytes");
        return NULL;
    }
    Py_ssize_t first = PyBytes_GET_SIZE(prefix), second = PyBytes_GET_SIZE(identifier), third = PyBytes_GET_SIZE(routes);
    PyObject *head = PyBytes_FromStringAndSize(NULL, first + second + third);
    if (!head) return NULL;
    char *to = PyBytes_AS_STRING(head);
    memcpy(to, PyBytes_AS_STRING(prefix), (size_t)first);
    memcpy(to + first, PyBytes_AS_STRING(identifier), (size_t)second);
    memcpy(to + first + second, PyBytes_AS_STRING(routes), (size_t)third);
    return head;
}

static int take_parts(PyObject *submission, PyObject *keys, PyObject **part) {
    PyObject *const names[] = {name_subject, name_received, name_source, name_sender, name_form,   name_kind,   name_keys,
                               name_extra,   name_id,       name_payload, name_number, name_tag_key, name_data_key};
    for (int i = 0; i < PARTS; i++)
        if (!(part[i] = PyObject_GetAttr(i < NUMBER ? submission : keys, names[i]))) return 0;
    return 1;
}

static PyObject *draft_one(Work *work, PyObject *type, PyObject *submission, PyObject *identifier, PyObject *keys,
                           PyObject *sequence) {
    PyObject *part[PARTS] = {0}, *shared = NULL, *header = NULL, *head = NULL, *made = NULL;
    if (take_parts(submission, keys, part) && (shared = shared_of(work, submission, part)) &&
        (header = header_of(work, part, sequence, PyTuple_GET_ITEM(shared, 0))) &&
        (head = joined(PyTuple_GET_ITEM(shared, 1), identifier, PyTuple_GET_ITEM(shared, 2)))) {
        PyObject *fields[] = {part[NUMBER], identifier, head, part[TAG_KEY], part[DATA_KEY], sequence, header, part[PAYLOAD]};
        made = PyObject_Vectorcall(type, fields, 8, NULL);
    }
    for (int i = 0; i < PARTS; i++) Py_XDECREF(part[i]);
    Py_XDECREF(shared);
    Py_XDECREF(header);
    Py_XDECREF(head);
    return made;
}

static PyObject *draft_many(PyObject *self, PyObject *arguments) {
    PyObject *type, *lists[4], *held[4] = {0};
    Work work = {0};
    if (!PyArg_ParseTuple(arguments, "OOOOOO!OO", &type, &lists[0], &lists[1], &lists[2], &lists[3], &PyDict_Type,
                          &work.remembered, &work.learn, &work.encode))
        return NULL;
    Py_ssize_t count = 0;
    for (int i = 0; i < 4; i++) {
        if (!(held[i] = PySequence_Tuple(lists[i]))) goto end;
        if (!i) count = PyTuple_GET_SIZE(held[0]);
        else if (PyTuple_GET_SIZE(held[i]) != count) {
            PyErr_Format(PyExc_ValueError, "%zd submissions, and %zd of what belongs to them", count, PyTuple_GET_SIZE(held[i]));
            goto end;
        }
    }
    work.drafts = PyList_New(count);
    for (Py_ssize_t i = 0; work.drafts && i < count; i++) {
        PyObject *one = draft_one(&work, type, PyTuple_GET_ITEM(held[0], i), PyTuple_GET_ITEM(held[1], i),
                                  PyTuple_GET_ITEM(held[2], i), PyTuple_GET_ITEM(held[3], i));
        if (!one) Py_CLEAR(work.drafts);
        else PyList_SET_ITEM(work.drafts, i, one);
    }
end:
    PyMem_Free(work.text.data);
    for (int i = 0; i < 4; i++) Py_XDECREF(held[i]);
    return work.drafts;
}

/* --- the module ------------------------------------------------------------------------------------------ */

static PyMethodDef methods[] = {
    {"find_ids", find_ids, METH_VARARGS, "Return which of these ids may stand in a run, and where."},
    {"draft_many", draft_many, METH_VARARGS, "Return the draft of each submission."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "archive._kernel_prepare",
                                        "What is done for every entry before it is sealed: see archive.kernel.", -1,
                                        methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernel_prepare(void) {
    struct {
        PyObject **name;
        const char *text;
    } names[] = {{&name_kind, "kind"},         {&name_subject, "subject"}, {&name_payload, "payload"},
                 {&name_received, "received_us"}, {&name_source, "source"},   {&name_sender, "sender"},
                 {&name_form, "form"},         {&name_keys, "keys"},       {&name_extra, "extra"},
                 {&name_id, "id"},             {&name_number, "number"},   {&name_tag_key, "tag_key"},
                 {&name_data_key, "data_key"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!(*names[i].name = PyUnicode_InternFromString(names[i].text))) return NULL;
    return PyModule_Create(&definition);
}
