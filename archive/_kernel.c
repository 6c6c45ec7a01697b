/* The native kernel: what is done for every entry, done for many at once.

   Each function here has a twin in archive/twin.py that says in Python what it does, and is tested equal to it byte
   for byte.  Cryptography is libcrypto's alone: SHA-256 and AES-256-GCM through EVP.  Nothing here decides anything:
   what is malformed is handed back as such, and the twin names the error.

   Memory: every object read while the GIL is released is held by a reference of ours and immutable (bytes); every
   object written is new and not yet known to anybody.  Lengths are checked before the GIL is released, and sums of
   lengths are checked against their limits before they are formed.  Sizes in formats: docs/formats/entry.md. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

enum {
    BEGIN = 10, TAG = 16, HASH = 32, LEAF = 58, KEY = 32, SALT = 32, NONCE = 12, AUTH = 16, CRC = 4,
    RANDOM = SALT + NONCE, LENGTH = 4, IDENTIFIER = 16, ROUTE = 10, SUBJECTS_MAX = 16, ROUTES_MAX = 32,
    HEAD_MAX = 4 + 8 * SUBJECTS_MAX + IDENTIFIER + ROUTE * ROUTES_MAX, PROVISIONAL = 0x80, ROW_EVENT = 1, ROW_BINDING = 4,
};
#define OPENING_MAX (INT_MAX - 4096) /* EVP counts in int */

static const char TAG_DOMAIN[] = "treering/tag/v1"; /* with its terminating 00, as the formats have it */
static const char COMMITMENT_DOMAIN[] = "treering/commitment/v1";

static EVP_MD *sha256;
static EVP_CIPHER *aes_gcm;
static PyObject *name_head, *name_tag_key, *name_data_key, *name_raw, *name_sequence, *name_header, *name_payload;

/* --- bytes ----------------------------------------------------------------------------------------------- */

static void put_u32(unsigned char *at, uint32_t value) {
    for (int i = 3; i >= 0; i--, value >>= 8) at[i] = (unsigned char)value;
}

static void put_u64(unsigned char *at, uint64_t value) {
    for (int i = 7; i >= 0; i--, value >>= 8) at[i] = (unsigned char)value;
}

static uint32_t get_u32(const unsigned char *at) {
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static uint64_t get_u64(const unsigned char *at) {
    return (uint64_t)get_u32(at) << 32 | get_u32(at + 4);
}

/* CRC-32 (ISO 3309), eight bytes a step ("slicing by 8"). */
static uint32_t crc_table[8][256];

static void crc_prepare(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t value = i;
        for (int bit = 0; bit < 8; bit++) value = value >> 1 ^ (value & 1 ? 0xEDB88320u : 0);
        crc_table[0][i] = value;
    }
    for (int slice = 1; slice < 8; slice++)
        for (int i = 0; i < 256; i++) {
            uint32_t before = crc_table[slice - 1][i];
            crc_table[slice][i] = before >> 8 ^ crc_table[0][before & 255];
        }
}

static uint32_t crc32_of(const unsigned char *data, size_t size) {
    uint32_t crc = ~0u;
    for (; size >= 8; size -= 8, data += 8) {
        uint32_t low = crc ^ ((uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 | (uint32_t)data[3] << 24);
        crc = crc_table[7][low & 255] ^ crc_table[6][low >> 8 & 255] ^ crc_table[5][low >> 16 & 255] ^
              crc_table[4][low >> 24] ^ crc_table[3][data[4]] ^ crc_table[2][data[5]] ^ crc_table[1][data[6]] ^
              crc_table[0][data[7]];
    }
    for (; size; size--) crc = crc >> 8 ^ crc_table[0][(crc ^ *data++) & 255];
    return ~crc;
}

/* --- hashing --------------------------------------------------------------------------------------------- */

/* SHA-256 of first ‖ second ‖ third; false where libcrypto fails. */
static int digest(EVP_MD_CTX *context, const void *first, size_t first_size, const void *second, size_t second_size,
                  const void *third, size_t third_size, unsigned char *out) {
    return EVP_DigestInit_ex2(context, sha256, NULL) && EVP_DigestUpdate(context, first, first_size) &&
           (!second_size || EVP_DigestUpdate(context, second, second_size)) &&
           (!third_size || EVP_DigestUpdate(context, third, third_size)) && EVP_DigestFinal_ex(context, out, NULL);
}

static PyObject *crypto_failed(void) {
    PyErr_SetString(PyExc_RuntimeError, "libcrypto refused a hash or a cipher");
    return NULL;
}

static int all_bytes(PyObject *items) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(items); i++)
        if (!PyBytes_Check(PyTuple_GET_ITEM(items, i))) {
            PyErr_Format(PyExc_TypeError, "item %zd is not bytes", i);
            return 0;
        }
    return 1;
}

/* Return a tuple of bytes objects, ours for as long as the call lasts, or NULL. */
static PyObject *held(PyObject *sequence) {
    PyObject *items = PySequence_Tuple(sequence);
    if (items && !all_bytes(items)) Py_CLEAR(items);
    return items;
}

static PyObject *new_hashes(Py_ssize_t count) {
    PyObject *list = PyList_New(count);
    for (Py_ssize_t i = 0; list && i < count; i++) {
        PyObject *one = PyBytes_FromStringAndSize(NULL, HASH);
        if (!one) Py_CLEAR(list);
        else PyList_SET_ITEM(list, i, one);
    }
    return list;
}

#define HASH_AT(list, i) ((unsigned char *)PyBytes_AS_STRING(PyList_GET_ITEM(list, i)))

static PyObject *leaf_hashes(PyObject *self, PyObject *entries) {
    PyObject *items = held(entries), *hashes = NULL;
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    if (!items || !context) goto end;
    Py_ssize_t count = PyTuple_GET_SIZE(items);
    if (!(hashes = new_hashes(count))) goto end;
    int good = 1;
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; good && i < count; i++) {
        PyObject *one = PyTuple_GET_ITEM(items, i);
        good = digest(context, "\0", 1, PyBytes_AS_STRING(one), (size_t)PyBytes_GET_SIZE(one), NULL, 0, HASH_AT(hashes, i));
    }
    Py_END_ALLOW_THREADS
    if (!good) { Py_CLEAR(hashes); crypto_failed(); }
end:
    if (!context && !PyErr_Occurred()) PyErr_NoMemory();
    EVP_MD_CTX_free(context);
    Py_XDECREF(items);
    return hashes;
}

static PyObject *pair_up(PyObject *self, PyObject *level) {
    PyObject *items = held(level), *hashes = NULL;
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    if (!items || !context) goto end;
    Py_ssize_t count = PyTuple_GET_SIZE(items);
    if (count & 1) {
        PyErr_Format(PyExc_ValueError, "%zd hashes do not make pairs", count);
        goto end;
    }
    if (!(hashes = new_hashes(count / 2))) goto end;
    int good = 1;
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; good && i < count; i += 2) {
        PyObject *left = PyTuple_GET_ITEM(items, i), *right = PyTuple_GET_ITEM(items, i + 1);
        good = digest(context, "\1", 1, PyBytes_AS_STRING(left), (size_t)PyBytes_GET_SIZE(left),
                      PyBytes_AS_STRING(right), (size_t)PyBytes_GET_SIZE(right), HASH_AT(hashes, i / 2));
    }
    Py_END_ALLOW_THREADS
    if (!good) { Py_CLEAR(hashes); crypto_failed(); }
end:
    if (!context && !PyErr_Occurred()) PyErr_NoMemory();
    EVP_MD_CTX_free(context);
    Py_XDECREF(items);
    return hashes;
}

/* Count the parts of a bundle; -1 where a length runs over the end. */
static Py_ssize_t parts_in(const unsigned char *data, Py_ssize_t size, int width) {
    Py_ssize_t at = 0, count = 0;
    while (at < size) {
        if (size - at < width) return -1;
        uint32_t length = width == 4 ? get_u32(data + at) : (uint32_t)data[at] << 8 | data[at + 1];
        at += width;
        if (length > (uint64_t)(size - at)) return -1;
        at += length;
        count++;
    }
    return count;
}

static PyObject *unbundle(PyObject *self, PyObject *arguments) {
    PyObject *value;
    int width;
    if (!PyArg_ParseTuple(arguments, "Si", &value, &width)) return NULL;
    if (width != 2 && width != 4) return PyErr_Format(PyExc_ValueError, "lengths have 2 or 4 bytes, not %d", width);
    const unsigned char *data = (const unsigned char *)PyBytes_AS_STRING(value);
    Py_ssize_t count = parts_in(data, PyBytes_GET_SIZE(value), width);
    if (count < 0) Py_RETURN_NONE;
    PyObject *parts = PyList_New(count);
    for (Py_ssize_t i = 0; parts && i < count; i++) {
        uint32_t length = width == 4 ? get_u32(data) : (uint32_t)data[0] << 8 | data[1];
        PyObject *part = PyBytes_FromStringAndSize((const char *)data + width, length);
        if (!part) Py_CLEAR(parts);
        else PyList_SET_ITEM(parts, i, part);
        data += width + length;
    }
    return parts;
}

static PyObject *bundle_hashes(PyObject *self, PyObject *value) {
    if (!PyBytes_Check(value)) return PyErr_Format(PyExc_TypeError, "a bundle is bytes");
    const unsigned char *data = (const unsigned char *)PyBytes_AS_STRING(value);
    Py_ssize_t count = parts_in(data, PyBytes_GET_SIZE(value), 2);
    if (count < 0) Py_RETURN_NONE;
    PyObject *hashes = new_hashes(count);
    if (!hashes) return NULL;
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    int good = context != NULL;
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; good && i < count; i++) {
        size_t length = (size_t)data[0] << 8 | data[1];
        good = digest(context, "\0", 1, data + 2, length, NULL, 0, HASH_AT(hashes, i));
        data += 2 + length;
    }
    Py_END_ALLOW_THREADS
    EVP_MD_CTX_free(context);
    if (!good) { Py_CLEAR(hashes); crypto_failed(); }
    return hashes;
}

/* --- sealing --------------------------------------------------------------------------------------------- */

typedef struct {
    PyObject *head, *tag_key, *key, *header, *payload; /* bytes, owned */
    uint64_t sequence;
    size_t row_size;
    unsigned char *leaf, *row, *hash;
} Draft;

static PyObject *bytes_of(PyObject *owner, PyObject *name, Py_ssize_t size) {
    PyObject *value = PyObject_GetAttr(owner, name);
    if (!value) return NULL;
    if (!PyBytes_Check(value)) PyErr_Format(PyExc_TypeError, "%U of a draft is not bytes", name);
    else if (size && PyBytes_GET_SIZE(value) != size)
        PyErr_Format(PyExc_ValueError, "%U of a draft has %zd bytes, not %zd", name, PyBytes_GET_SIZE(value), size);
    else return value;
    Py_DECREF(value);
    return NULL;
}

static int draft_take(Draft *draft, PyObject *from) {
    PyObject *data_key, *sequence;
    if (!(draft->head = bytes_of(from, name_head, 0)) || !(draft->tag_key = bytes_of(from, name_tag_key, KEY))) return 0;
    if (!(data_key = PyObject_GetAttr(from, name_data_key))) return 0;
    draft->key = bytes_of(data_key, name_raw, KEY);
    Py_DECREF(data_key);
    if (!draft->key || !(sequence = PyObject_GetAttr(from, name_sequence))) return 0;
    draft->sequence = PyLong_AsUnsignedLongLong(sequence);
    Py_DECREF(sequence);
    if (PyErr_Occurred()) return 0;
    if (!(draft->header = bytes_of(from, name_header, 0)) || !(draft->payload = bytes_of(from, name_payload, 0))) return 0;
    size_t head = (size_t)PyBytes_GET_SIZE(draft->head), header = (size_t)PyBytes_GET_SIZE(draft->header);
    size_t payload = (size_t)PyBytes_GET_SIZE(draft->payload);
    if (head > HEAD_MAX) {
        PyErr_Format(PyExc_ValueError, "head of a draft has %zu bytes; at most %d", head, HEAD_MAX);
        return 0;
    }
    if (header > OPENING_MAX || payload > OPENING_MAX - header) {
        PyErr_SetString(PyExc_OverflowError, "an entry of more than 2 GiB");
        return 0;
    }
    draft->row_size = head + NONCE + SALT + LENGTH + header + payload + AUTH + CRC;
    return 1;
}

static void draft_drop(Draft *draft) {
    Py_XDECREF(draft->head);
    Py_XDECREF(draft->tag_key);
    Py_XDECREF(draft->key);
    Py_XDECREF(draft->header);
    Py_XDECREF(draft->payload);
}

/* Encrypt `size` bytes under key and nonce; `out` gets the ciphertext and its tag. */
static int encrypt(EVP_CIPHER_CTX *context, const unsigned char *key, const unsigned char *nonce, const unsigned char *aad,
                   size_t aad_size, const unsigned char *plain, size_t size, unsigned char *out) {
    int got;
    return EVP_EncryptInit_ex2(context, NULL, key, nonce, NULL) &&
           (!aad_size || EVP_EncryptUpdate(context, NULL, &got, aad, (int)aad_size)) &&
           EVP_EncryptUpdate(context, out, &got, plain, (int)size) && EVP_EncryptFinal_ex(context, out + size, &got) &&
           EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, AUTH, out + size);
}

/* Write leaf, row and leaf hash of one entry; `scratch` has room for the commitment's domain and the opening. */
static int seal_one(Draft *draft, const unsigned char *begin, const unsigned char *random, EVP_MD_CTX *hash,
                    EVP_CIPHER_CTX *cipher, unsigned char *scratch) {
    size_t head = (size_t)PyBytes_GET_SIZE(draft->head), header = (size_t)PyBytes_GET_SIZE(draft->header);
    size_t payload = (size_t)PyBytes_GET_SIZE(draft->payload), size = SALT + LENGTH + header + payload;
    unsigned char number[8], tag[HASH], *opening = scratch + sizeof COMMITMENT_DOMAIN, *row = draft->row;
    memcpy(scratch, COMMITMENT_DOMAIN, sizeof COMMITMENT_DOMAIN);
    memcpy(opening, random, SALT);
    put_u32(opening + SALT, (uint32_t)header);
    memcpy(opening + SALT + LENGTH, PyBytes_AS_STRING(draft->header), header);
    memcpy(opening + SALT + LENGTH + header, PyBytes_AS_STRING(draft->payload), payload);

    put_u64(number, draft->sequence);
    memcpy(draft->leaf, begin, BEGIN);
    if (!digest(hash, TAG_DOMAIN, sizeof TAG_DOMAIN, PyBytes_AS_STRING(draft->tag_key), KEY, number, 8, tag) ||
        !digest(hash, scratch, sizeof COMMITMENT_DOMAIN + size, NULL, 0, NULL, 0, draft->leaf + BEGIN + TAG))
        return 0;
    memcpy(draft->leaf + BEGIN, tag, TAG);
    if (!digest(hash, "\0", 1, draft->leaf, LEAF, NULL, 0, draft->hash)) return 0;

    memcpy(row, PyBytes_AS_STRING(draft->head), head);
    memcpy(row + head, random + SALT, NONCE);
    if (!encrypt(cipher, (unsigned char *)PyBytes_AS_STRING(draft->key), row + head, row, head, opening, size,
                 row + head + NONCE))
        return 0;
    put_u32(row + draft->row_size - CRC, crc32_of(row, draft->row_size - CRC));
    return 1;
}

static int seal_all(Draft *drafts, Py_ssize_t count, const unsigned char *begin, const unsigned char *random) {
    size_t most = 0;
    for (Py_ssize_t i = 0; i < count; i++) if (drafts[i].row_size > most) most = drafts[i].row_size;
    size_t room = sizeof COMMITMENT_DOMAIN + most; /* a row is longer than its opening */
    unsigned char *scratch = OPENSSL_malloc(room);
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();
    int good = scratch && hash && cipher && EVP_EncryptInit_ex2(cipher, aes_gcm, NULL, NULL, NULL);
    for (Py_ssize_t i = 0; good && i < count; i++)
        good = seal_one(&drafts[i], begin, random + i * RANDOM, hash, cipher, scratch);
    EVP_CIPHER_CTX_free(cipher);
    EVP_MD_CTX_free(hash);
    OPENSSL_clear_free(scratch, room);
    return good;
}

static PyObject *seal_many(PyObject *self, PyObject *arguments) {
    const unsigned char *begin, *random;
    Py_ssize_t begin_size, random_size;
    PyObject *sequence, *leaves = NULL, *rows = NULL, *hashes = NULL, *result = NULL;
    if (!PyArg_ParseTuple(arguments, "y#Oy#", &begin, &begin_size, &sequence, &random, &random_size)) return NULL;
    PyObject *items = PySequence_Tuple(sequence);
    if (!items) return NULL;
    Py_ssize_t count = PyTuple_GET_SIZE(items);
    Draft *drafts = PyMem_Calloc((size_t)count + 1, sizeof *drafts);
    if (!drafts) { PyErr_NoMemory(); goto end; }
    if (begin_size != BEGIN || random_size / RANDOM != count || random_size % RANDOM) {
        PyErr_Format(PyExc_ValueError, "%zd drafts need a prefix of 10 and %zd random bytes, not %zd and %zd", count,
                     count * RANDOM, begin_size, random_size);
        goto end;
    }
    leaves = PyList_New(count), rows = PyList_New(count), hashes = new_hashes(count);
    if (!leaves || !rows || !hashes) goto end;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (!draft_take(&drafts[i], PyTuple_GET_ITEM(items, i))) goto end;
        PyObject *leaf = PyBytes_FromStringAndSize(NULL, LEAF);
        if (!leaf) goto end;
        PyList_SET_ITEM(leaves, i, leaf);
        PyObject *row = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)drafts[i].row_size);
        if (!row) goto end;
        PyList_SET_ITEM(rows, i, row);
        drafts[i].leaf = (unsigned char *)PyBytes_AS_STRING(leaf);
        drafts[i].row = (unsigned char *)PyBytes_AS_STRING(row);
        drafts[i].hash = HASH_AT(hashes, i);
    }
    int good;
    Py_BEGIN_ALLOW_THREADS
    good = seal_all(drafts, count, begin, random);
    Py_END_ALLOW_THREADS
    result = good ? PyTuple_Pack(3, leaves, rows, hashes) : crypto_failed();
end:
    for (Py_ssize_t i = 0; drafts && i < count; i++) draft_drop(&drafts[i]);
    PyMem_Free(drafts);
    Py_XDECREF(leaves);
    Py_XDECREF(rows);
    Py_XDECREF(hashes);
    Py_DECREF(items);
    return result;
}

/* --- rows: parsing and opening --------------------------------------------------------------------------- */

/* Return how long the head of a row is, or 0 if it is of no known form. */
static size_t head_of(const unsigned char *row, size_t size) {
    if (size < 4 || row[0] != 1) return 0;
    unsigned kind = row[1] & ~PROVISIONAL, subjects = row[2], routes = row[3];
    size_t head = 4 + 8 * (size_t)subjects + IDENTIFIER + ROUTE * (size_t)routes;
    int known = 1 <= kind && kind <= ROW_BINDING && 1 <= subjects && subjects <= SUBJECTS_MAX && routes <= ROUTES_MAX;
    return known && size >= head + NONCE + SALT + LENGTH + AUTH + CRC ? head : 0;
}

static PyObject *subjects_of(const unsigned char *row) {
    PyObject *subjects = PyTuple_New(row[2]);
    for (Py_ssize_t i = 0; subjects && i < row[2]; i++) {
        PyObject *number = PyLong_FromUnsignedLongLong(get_u64(row + 4 + 8 * i));
        if (!number) Py_CLEAR(subjects);
        else PyTuple_SET_ITEM(subjects, i, number);
    }
    return subjects;
}

static PyObject *parsed(PyObject *type, PyObject *data, size_t head) {
    const unsigned char *row = (const unsigned char *)PyBytes_AS_STRING(data);
    Py_ssize_t count = row[2];
    PyObject *fields[6] = {0}, *made = NULL, *subjects = subjects_of(row);
    if (!subjects) return NULL;
    const char *open = (const char *)row + 4 + 8 * count;
    fields[0] = PyLong_FromLong(row[1] & ~PROVISIONAL);
    fields[1] = PyBool_FromLong(row[1] & PROVISIONAL);
    fields[2] = subjects;
    fields[3] = PyBytes_FromStringAndSize(open, IDENTIFIER);
    fields[4] = PyBytes_FromStringAndSize(open + IDENTIFIER, (const char *)row + head - (open + IDENTIFIER));
    fields[5] = Py_NewRef(data);
    if (fields[0] && fields[3] && fields[4]) made = PyObject_Vectorcall(type, fields, 6, NULL);
    for (int i = 0; i < 6; i++) Py_XDECREF(fields[i]);
    return made;
}

static PyObject *parse_rows(PyObject *self, PyObject *arguments) {
    PyObject *type, *sequence;
    if (!PyArg_ParseTuple(arguments, "OO", &type, &sequence)) return NULL;
    PyObject *items = held(sequence);
    if (!items) return NULL;
    Py_ssize_t count = PyTuple_GET_SIZE(items);
    PyObject *rows = PyList_New(count);
    int malformed = 0;
    for (Py_ssize_t i = 0; rows && !malformed && i < count; i++) {
        PyObject *data = PyTuple_GET_ITEM(items, i), *row = NULL;
        size_t size = (size_t)PyBytes_GET_SIZE(data), head = head_of((unsigned char *)PyBytes_AS_STRING(data), size);
        if (size && !head) malformed = 1;
        row = head ? parsed(type, data, head) : Py_NewRef(Py_None);
        if (!row) Py_CLEAR(rows);
        else PyList_SET_ITEM(rows, i, row);
    }
    Py_DECREF(items);
    if (!rows || !malformed) return rows;
    Py_DECREF(rows);
    Py_RETURN_NONE;
}

/* Return how many bytes the plain row at the front takes with its length, or 0 if it is not plain: whole, of a known
   form, its checksum right. */
static Py_ssize_t plain(const unsigned char *data, Py_ssize_t size) {
    if (size < LENGTH) return 0;
    uint32_t length = get_u32(data);
    const unsigned char *row = data + LENGTH;
    if (length > (uint64_t)(size - LENGTH) || !head_of(row, length)) return 0;
    return crc32_of(row, length - CRC) == get_u32(row + length - CRC) ? (Py_ssize_t)LENGTH + length : 0;
}

static int append(PyObject *list, PyObject *item) {
    int good = item && PyList_Append(list, item) == 0;
    Py_XDECREF(item);
    return good;
}

static PyObject *plain_rows(PyObject *self, PyObject *arguments) {
    static const unsigned char no_id[IDENTIFIER];
    PyObject *value;
    Py_ssize_t at, taken, count = 0;
    if (!PyArg_ParseTuple(arguments, "Sn", &value, &at)) return NULL;
    const unsigned char *data = (const unsigned char *)PyBytes_AS_STRING(value);
    Py_ssize_t size = PyBytes_GET_SIZE(value);
    if (at < 0 || at > size) return PyErr_Format(PyExc_ValueError, "byte %zd of a bundle of %zd", at, size);
    PyObject *identifiers = PyList_New(0), *places = PyList_New(0);
    int good = identifiers && places;
    while (good && (taken = plain(data + at, size - at))) {
        const unsigned char *identifier = data + at + LENGTH + 4 + 8 * data[at + LENGTH + 2];
        if (memcmp(identifier, no_id, IDENTIFIER))
            good = append(identifiers, PyBytes_FromStringAndSize((const char *)identifier, IDENTIFIER)) &&
                   append(places, PyLong_FromSsize_t(count));
        at += taken;
        count++;
    }
    if (good) return Py_BuildValue("nnNN", at, count, identifiers, places);
    Py_XDECREF(identifiers);
    Py_XDECREF(places);
    return NULL;
}

/* --- picking --------------------------------------------------------------------------------------------- */

enum { ROUTING_HASH = 8, OUTLINED = 3 };

typedef struct {
    uint64_t shard, shards;
    const unsigned char *wanted; /* the one routing hash, or NULL */
    PyObject *known; /* outline of routes -> answer */
    PyObject *tally; /* outline of routes -> how many plain events had it */
    char last[OUTLINED * ROUTES_MAX]; /* the outline that was looked up last: the next row has mostly the same */
    Py_ssize_t last_size; /* -1 before the first */
    PyObject *key; /* the same as an object, owned, or NULL */
    Py_ssize_t run; /* how many rows in a row had it that the tally does not have yet */
    PyObject *answer; /* what is known of it, owned, or NULL */
} Share;

/* Put those who had the last outline into the tally. */
static int tallied(Share *share) {
    if (!share->run) return 1;
    PyObject *before = PyDict_GetItemWithError(share->tally, share->key);
    if (!before && PyErr_Occurred()) return 0;
    PyObject *count = PyLong_FromSsize_t(share->run + (before ? PyLong_AsSsize_t(before) : 0));
    int good = count && PyDict_SetItem(share->tally, share->key, count) == 0;
    Py_XDECREF(count);
    share->run = 0;
    return good;
}

/* Return what is known of a row with these routes, borrowed, or NULL (with an exception if there is one). */
static PyObject *answer_to(Share *share, const unsigned char *routes, unsigned count) {
    char outline[OUTLINED * ROUTES_MAX];
    Py_ssize_t size = OUTLINED * (Py_ssize_t)count;
    for (char *at = outline; count--; routes += ROUTE, at += OUTLINED) {
        const unsigned char *hash = routes + 2;
        int held = share->wanted ? !memcmp(hash, share->wanted, ROUTING_HASH) : get_u64(hash) % share->shards == share->shard;
        at[0] = (char)routes[0], at[1] = (char)routes[1], at[2] = (char)held;
    }
    if (size == share->last_size && !memcmp(outline, share->last, (size_t)size)) {
        share->run++;
        return share->answer;
    }
    PyObject *key = tallied(share) ? PyBytes_FromStringAndSize(outline, size) : NULL;
    if (!key) return NULL;
    Py_XSETREF(share->key, key);
    Py_XSETREF(share->answer, Py_XNewRef(PyDict_GetItemWithError(share->known, key)));
    memcpy(share->last, outline, (size_t)size);
    share->last_size = size;
    share->run = 1;
    return share->answer;
}

typedef struct {
    PyObject *indices, *places, *answers;
    Py_ssize_t asked; /* how many rows the caller must look at himself */
} Picked;

/* Look at one row of a known form; false with an exception. */
static int pick(Picked *to, Share *share, long long index, const unsigned char *row, Py_ssize_t place) {
    PyObject *answer = Py_None;
    if (row[1] == ROW_EVENT) {
        answer = answer_to(share, row + 4 + 8 * row[2] + IDENTIFIER, row[3]);
        if (!answer && PyErr_Occurred()) return 0;
        int nobody = answer && answer != Py_None ? PyObject_Not(answer) : 0;
        if (nobody) return nobody > 0;
        if (!answer) answer = Py_None;
    } else if (row[1] != ROW_BINDING && !(row[1] & PROVISIONAL)) return 1;
    int good = append(to->places, PyLong_FromSsize_t(place)) && append(to->indices, PyLong_FromLongLong(index)) &&
               PyList_Append(to->answers, answer) == 0;
    to->asked += answer == Py_None;
    return good;
}

static PyObject *pick_rows(PyObject *self, PyObject *arguments) {
    PyObject *value, *wanted;
    long long index, start, stop;
    unsigned long long shard, shards;
    Share share = {.last_size = -1};
    if (!PyArg_ParseTuple(arguments, "SLLLKKOO!", &value, &index, &start, &stop, &shard, &shards, &wanted,
                          &PyDict_Type, &share.known))
        return NULL;
    if (!shards || (wanted != Py_None && !(PyBytes_Check(wanted) && PyBytes_GET_SIZE(wanted) == ROUTING_HASH)))
        return PyErr_Format(PyExc_ValueError, "a share of no shard, or of no routing hash");
    share.shard = shard, share.shards = shards;
    share.wanted = wanted == Py_None ? NULL : (unsigned char *)PyBytes_AS_STRING(wanted);
    const unsigned char *data = (const unsigned char *)PyBytes_AS_STRING(value);
    Py_ssize_t size = PyBytes_GET_SIZE(value), at = 0;
    Picked to = {PyList_New(0), PyList_New(0), PyList_New(0), 0};
    share.tally = PyDict_New();
    int good = to.indices && to.places && to.answers && share.tally, malformed = 0;
    for (; good && !malformed && at < size && index < stop; index++) {
        uint32_t length = size - at < LENGTH ? 0 : get_u32(data + at);
        if (size - at < LENGTH || length > (uint64_t)(size - at - LENGTH)) { malformed = 1; break; }
        const unsigned char *row = data + at + LENGTH;
        at += LENGTH + (Py_ssize_t)length;
        if (index < start || !length) continue;
        if (!head_of(row, length)) malformed = 1;
        else good = pick(&to, &share, index, row, row - data);
    }
    good = good && tallied(&share);
    Py_XDECREF(share.answer);
    Py_XDECREF(share.key);
    if (good && !malformed)
        return Py_BuildValue("LnNNNN", index, to.asked, to.indices, to.places, to.answers, share.tally);
    Py_XDECREF(share.tally);
    Py_XDECREF(to.indices);
    Py_XDECREF(to.places);
    Py_XDECREF(to.answers);
    if (!good) return NULL;
    Py_RETURN_NONE;
}

/* --- keys ------------------------------------------------------------------------------------------------ */

/* Data keys of rows about one subject, by its number; and what it is called, if that was read lately.  A key has a cache
   line of its own: with objects it would be six, and most of the time that a key takes is waiting for them.  As in
   archive.recent there is a young half and an old one: what is asked for is young, and when the young are too many the
   old ones are forgotten.  Every place that held a key is wiped before it is given back. */
typedef struct {
    uint64_t number;
    PyObject *label; /* of ASCII letters, owned, or NULL */
    unsigned char key[KEY];
    uint32_t used;
    char rest[12];
} Known;

_Static_assert(sizeof(Known) == 64, "a known key has a cache line of its own");

typedef struct {
    Known *places; /* linear probing; never more than half of them used */
    size_t room, used; /* room is a power of 2, or 0 */
} Half;

typedef struct {
    PyObject_HEAD
    Half young, old;
    size_t most; /* used places of a half */
} Keys;

static void half_drop(Half *half) {
    for (size_t i = 0; i < half->room; i++) Py_CLEAR(half->places[i].label);
    if (half->places) {
        OPENSSL_cleanse(half->places, half->room * sizeof *half->places);
        free(half->places);
    }
    *half = (Half){0};
}

/* Return where a number is, or where it would be put; NULL where there is no place at all. */
static Known *place_for(const Half *half, uint64_t number) {
    if (!half->room) return NULL;
    size_t at = (size_t)(number * 0x9E3779B97F4A7C15u >> 20) & (half->room - 1);
    while (half->places[at].used && half->places[at].number != number) at = (at + 1) & (half->room - 1);
    return &half->places[at];
}

static int half_grow(Half *half) {
    Half more = {.room = half->room ? 2 * half->room : 64, .used = half->used};
    more.places = aligned_alloc(sizeof *more.places, more.room * sizeof *more.places);
    if (!more.places) return 0;
    memset(more.places, 0, more.room * sizeof *more.places);
    for (size_t i = 0; i < half->room; i++)
        if (half->places[i].used) {
            *place_for(&more, half->places[i].number) = half->places[i];
            half->places[i].label = NULL; /* it moved */
        }
    half_drop(half);
    *half = more;
    return 1;
}

/* Return a place for a number that is not young: a free one, taken.  NULL without memory. */
static Known *young_place(Keys *keys, uint64_t number) {
    if (keys->young.used >= keys->most) {
        half_drop(&keys->old);
        keys->old = keys->young;
        keys->young = (Half){0};
    }
    if (2 * keys->young.used >= keys->young.room && !half_grow(&keys->young)) return NULL;
    Known *known = place_for(&keys->young, number);
    known->number = number;
    known->used = 1;
    keys->young.used++;
    return known;
}

/* Return what is known of a subject, who is young from now on; NULL if nothing is. */
static Known *known_of(Keys *keys, uint64_t number) {
    Known *known = place_for(&keys->young, number), *old;
    if (known && known->used) return known;
    if (!(old = place_for(&keys->old, number)) || !old->used) return NULL;
    Known copy = *old;
    old->label = NULL; /* it moves; a key that is known twice is the same */
    if ((known = young_place(keys, number))) memcpy(known->key, copy.key, KEY), known->label = copy.label;
    else Py_XDECREF(copy.label);
    OPENSSL_cleanse(copy.key, KEY);
    return known;
}

static PyObject *keys_new(PyTypeObject *type, PyObject *arguments, PyObject *named) {
    Py_ssize_t size;
    if (!PyArg_ParseTuple(arguments, "n", &size)) return NULL;
    Keys *keys = (Keys *)type->tp_alloc(type, 0);
    if (keys) keys->most = size < 2 ? 1 : (size_t)size / 2;
    return (PyObject *)keys;
}

static PyObject *keys_clear(Keys *keys, PyObject *nothing) {
    half_drop(&keys->young);
    half_drop(&keys->old);
    Py_RETURN_NONE;
}

static void keys_drop(Keys *keys) {
    PyTypeObject *type = Py_TYPE(keys);
    half_drop(&keys->young);
    half_drop(&keys->old);
    type->tp_free((PyObject *)keys);
    Py_DECREF(type);
}

static PyObject *keys_put(Keys *keys, PyObject *arguments) {
    PyObject *number;
    const unsigned char *key;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(arguments, "O!y#", &PyLong_Type, &number, &key, &size)) return NULL;
    uint64_t subject = PyLong_AsUnsignedLongLong(number);
    if (PyErr_Occurred()) return NULL;
    if (size != KEY) return PyErr_Format(PyExc_ValueError, "a data key has %d bytes, not %zd", KEY, size);
    Known *known = known_of(keys, subject);
    if (!known && !(known = young_place(keys, subject))) return PyErr_NoMemory();
    memcpy(known->key, key, KEY);
    Py_RETURN_NONE;
}

static Py_ssize_t keys_length(Keys *keys) {
    return (Py_ssize_t)(keys->young.used + keys->old.used);
}

static int decrypt(EVP_CIPHER_CTX *context, const unsigned char *key, const unsigned char *row, size_t head, size_t size,
                   unsigned char *out) {
    int got;
    const unsigned char *closed = row + head + NONCE;
    return EVP_DecryptInit_ex2(context, NULL, key, row + head, NULL) &&
           EVP_DecryptUpdate(context, NULL, &got, row, (int)head) &&
           EVP_DecryptUpdate(context, out, &got, closed, (int)size) &&
           EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, AUTH, (void *)(closed + size)) &&
           EVP_DecryptFinal_ex(context, out + size, &got);
}

typedef struct {
    const unsigned char *row;
    size_t head, size; /* of the row's head, and of its opening */
    unsigned char *opening; /* NULL once it is known not to be authentic */
    PyObject *label; /* what its subject is called, owned, or NULL: not known */
    unsigned char key[KEY];
} Closed;

static PyObject *opened(const Closed *one) {
    size_t header = one->opening ? get_u32(one->opening + SALT) : 0;
    if (!one->opening || header > one->size - SALT - LENGTH) Py_RETURN_NONE;
    const char *opening = (const char *)one->opening;
    return Py_BuildValue("y#y#y#", opening, (Py_ssize_t)SALT, opening + SALT + LENGTH, (Py_ssize_t)header,
                         opening + SALT + LENGTH + header, (Py_ssize_t)(one->size - SALT - LENGTH - header));
}

static void open_all(Closed *closed, Py_ssize_t count) {
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    int good = context && EVP_DecryptInit_ex2(context, aes_gcm, NULL, NULL, NULL);
    for (Py_ssize_t i = 0; i < count; i++) {
        Closed *one = &closed[i];
        if (one->opening && !(good && decrypt(context, one->key, one->row, one->head, one->size, one->opening)))
            one->opening = NULL;
    }
    EVP_CIPHER_CTX_free(context);
}

/* Rows that were opened together: what holds their bytes, and where each opening lies. */
typedef struct {
    PyObject *rows; /* a tuple of bytes, owned */
    Closed *each;
    unsigned char *room;
    size_t total;
    Py_ssize_t count;
} Batch;

static void batch_drop(Batch *batch) {
    if (batch->room) OPENSSL_clear_free(batch->room, batch->total);
    for (Py_ssize_t i = 0; batch->each && i < batch->count; i++) Py_XDECREF(batch->each[i].label);
    if (batch->each) OPENSSL_cleanse(batch->each, (size_t)batch->count * sizeof *batch->each);
    PyMem_Free(batch->each);
    Py_XDECREF(batch->rows);
}

/* The row that begins at a place of a bundle; none where the place is no place of a row. */
static const unsigned char *row_in(PyObject *bundle, PyObject *place, size_t *size) {
    const unsigned char *bytes = (unsigned char *)PyBytes_AS_STRING(bundle);
    Py_ssize_t whole = PyBytes_GET_SIZE(bundle), at = PyLong_AsSsize_t(place);
    *size = 0;
    if (at < LENGTH || at > whole) return NULL; /* also where it is no number: the caller looks for an exception */
    uint32_t length = get_u32(bytes + at - LENGTH);
    if (length > (uint64_t)(whole - at)) return NULL;
    *size = length;
    return bytes + at;
}

/* Begin a batch of these rows; false with an exception. */
static int batch_begin(Batch *batch, PyObject *row_list) {
    *batch = (Batch){.total = 1};
    if (!(batch->rows = held(row_list))) return 0;
    batch->count = PyTuple_GET_SIZE(batch->rows);
    if ((batch->each = PyMem_Calloc((size_t)batch->count + 1, sizeof *batch->each))) return 1;
    batch->count = 0;
    PyErr_NoMemory();
    return 0;
}

/* Take a row into the batch if it is of a known form; its key is put into the place that is returned, else NULL. */
static Closed *batch_take(Batch *batch, Py_ssize_t i, const unsigned char *row, size_t size) {
    size_t head = row ? head_of(row, size) : 0;
    if (!head || size > OPENING_MAX || size > SIZE_MAX / 2 - batch->total) return NULL;
    Closed *one = &batch->each[i];
    one->row = row, one->head = head, one->size = size - head - NONCE - AUTH - CRC;
    batch->total += one->size;
    return one;
}

/* Decrypt and authenticate all rows that were taken; false with an exception where memory is short. */
static int batch_open(Batch *batch) {
    if (!(batch->room = OPENSSL_malloc(batch->total))) {
        PyErr_NoMemory();
        return 0;
    }
    unsigned char *free_at = batch->room;
    for (Py_ssize_t i = 0; i < batch->count; i++)
        if (batch->each[i].row) {
            batch->each[i].opening = free_at;
            free_at += batch->each[i].size;
        }
    Py_BEGIN_ALLOW_THREADS
    open_all(batch->each, batch->count);
    Py_END_ALLOW_THREADS
    return 1;
}

/* Take rows from a list, each with its key from another; false with an exception. */
static int batch_of_rows(Batch *batch, PyObject *row_list, PyObject *key_list) {
    PyObject *keys = NULL;
    int good = batch_begin(batch, row_list) && (keys = held(key_list));
    if (good && PyTuple_GET_SIZE(keys) != batch->count) {
        PyErr_Format(PyExc_ValueError, "%zd rows and %zd keys", batch->count, PyTuple_GET_SIZE(keys));
        good = 0;
    }
    for (Py_ssize_t i = 0; good && i < batch->count; i++) {
        PyObject *row = PyTuple_GET_ITEM(batch->rows, i), *key = PyTuple_GET_ITEM(keys, i);
        if (PyBytes_GET_SIZE(key) != KEY) continue;
        Closed *one = batch_take(batch, i, (unsigned char *)PyBytes_AS_STRING(row), (size_t)PyBytes_GET_SIZE(row));
        if (one) memcpy(one->key, PyBytes_AS_STRING(key), KEY);
    }
    Py_XDECREF(keys);
    return good;
}

/* The number of a row's one subject; false where it has several. */
static int one_subject(const unsigned char *row, uint64_t *number) {
    *number = get_u64(row + 4);
    return row[2] == 1;
}

/* Take rows from bundles, each at its place there, those whose key is known; false with an exception. */
static int batch_of_places(Batch *batch, PyObject *row_list, PyObject *places, Keys *keys) {
    if (!batch_begin(batch, row_list)) return 0;
    if (PyTuple_GET_SIZE(places) != batch->count) {
        PyErr_Format(PyExc_ValueError, "%zd bundles and %zd places", batch->count, PyTuple_GET_SIZE(places));
        return 0;
    }
    for (Py_ssize_t i = 0; i < batch->count; i++) {
        size_t size;
        uint64_t number;
        const unsigned char *row = row_in(PyTuple_GET_ITEM(batch->rows, i), PyTuple_GET_ITEM(places, i), &size);
        if (!row && PyErr_Occurred()) return 0;
        Known *known = row && head_of(row, size) && one_subject(row, &number) ? known_of(keys, number) : NULL;
        Closed *one = known ? batch_take(batch, i, row, size) : NULL;
        if (!one) continue;
        memcpy(one->key, known->key, KEY);
        one->label = Py_XNewRef(known->label);
    }
    return 1;
}

static PyObject *keys_unknown(Keys *keys, PyObject *arguments) {
    PyObject *bundle_list, *place_list, *bundles, *places = NULL, *unknown = NULL;
    if (!PyArg_ParseTuple(arguments, "OO!", &bundle_list, &PyList_Type, &place_list)) return NULL;
    if (!(bundles = held(bundle_list)) || !(places = PyList_AsTuple(place_list))) goto end;
    Py_ssize_t count = PyTuple_GET_SIZE(bundles);
    if (PyTuple_GET_SIZE(places) != count) {
        PyErr_Format(PyExc_ValueError, "%zd bundles and %zd places", count, PyTuple_GET_SIZE(places));
        goto end;
    }
    unknown = PyList_New(0);
    for (Py_ssize_t i = 0; unknown && i < count; i++) {
        size_t size;
        uint64_t number;
        const unsigned char *row = row_in(PyTuple_GET_ITEM(bundles, i), PyTuple_GET_ITEM(places, i), &size);
        if (!row && PyErr_Occurred()) Py_CLEAR(unknown);
        else if (row && head_of(row, size) && one_subject(row, &number) && !known_of(keys, number) &&
                 !append(unknown, PyLong_FromUnsignedLongLong(number)))
            Py_CLEAR(unknown);
    }
end:
    Py_XDECREF(bundles);
    Py_XDECREF(places);
    return unknown;
}

static PyObject *open_rows(PyObject *self, PyObject *arguments) {
    PyObject *row_list, *key_list, *result = NULL;
    Batch batch;
    if (!PyArg_ParseTuple(arguments, "OO", &row_list, &key_list)) return NULL;
    if (batch_of_rows(&batch, row_list, key_list) && batch_open(&batch)) result = PyList_New(batch.count);
    for (Py_ssize_t i = 0; result && i < batch.count; i++) {
        PyObject *one = opened(&batch.each[i]);
        if (!one) Py_CLEAR(result);
        else PyList_SET_ITEM(result, i, one);
    }
    batch_drop(&batch);
    return result;
}

/* --- events ---------------------------------------------------------------------------------------------- */

/* What is usual is read here.  For everything else (`unusual`) the caller asks the twin: so a header in another spelling,
   a damaged one, a payload that is no JSON, all mean just what the twin says. */

typedef struct {
    const unsigned char *at, *end;
} Reader;

/* Take a MessagePack string; false if there is none. */
static int take_text(Reader *from, const char **text, size_t *size) {
    size_t left = (size_t)(from->end - from->at), prefix = 1;
    if (!left) return 0;
    unsigned char first = from->at[0];
    if ((first & 0xE0) == 0xA0) *size = first & 0x1F;
    else if (first == 0xD9 && left >= 2) *size = from->at[1], prefix = 2;
    else if (first == 0xDA && left >= 3) *size = (size_t)from->at[1] << 8 | from->at[2], prefix = 3;
    else return 0;
    if (*size > left - prefix) return 0;
    *text = (const char *)from->at + prefix;
    from->at += prefix + *size;
    return 1;
}

static int take_number(Reader *from, uint64_t *number) {
    static const unsigned char widths[] = {1, 2, 4, 8};
    if (from->at == from->end) return 0;
    unsigned char first = *from->at;
    if (first < 0x80) { *number = first; from->at++; return 1; }
    if (first < 0xCC || first > 0xCF) return 0;
    int width = widths[first - 0xCC];
    if (from->end - from->at < 1 + width) return 0;
    *number = 0;
    for (int i = 1; i <= width; i++) *number = *number << 8 | from->at[i];
    from->at += 1 + width;
    return 1;
}

static int take_map(Reader *from, unsigned *count) {
    if (from->at == from->end || (*from->at & 0xF0) != 0x80) return 0;
    *count = *from->at++ & 0x0F;
    return 1;
}

static int is_ascii(const char *text, size_t size) {
    unsigned char seen = 0;
    for (size_t i = 0; i < size; i++) seen |= (unsigned char)text[i];
    return seen < 0x80;
}

/* Names recur: fields, sources, forms.  A small table of those seen last saves making each again. */
#define NAMES 64
#define NAME_SIZE_MAX 48
static struct {
    PyObject *made;
    unsigned char size;
    char text[NAME_SIZE_MAX];
} names[NAMES];

static PyObject *name_of(const char *text, size_t size) {
    if (!size || size > NAME_SIZE_MAX) return PyUnicode_DecodeUTF8(text, (Py_ssize_t)size, NULL);
    unsigned slot = ((unsigned char)text[0] * 31u + (unsigned char)text[size - 1] * 7u + (unsigned)size) % NAMES;
    if (!names[slot].made || names[slot].size != size || memcmp(names[slot].text, text, size)) {
        PyObject *made = PyUnicode_DecodeUTF8(text, (Py_ssize_t)size, NULL);
        if (!made) return NULL;
        Py_XSETREF(names[slot].made, made);
        names[slot].size = (unsigned char)size;
        memcpy(names[slot].text, text, size);
    }
    return Py_NewRef(names[slot].made);
}

typedef struct {
    PyObject *source, *form, *keys; /* owned */
    PyObject *label; /* owned: what the subject is called, if it is the value of a key field */
    uint64_t received_ms;
} Head;

static void head_drop(Head *head) {
    Py_CLEAR(head->source);
    Py_CLEAR(head->form);
    Py_CLEAR(head->keys);
    Py_CLEAR(head->label);
}

/* Set a key field; both are ours no longer. */
static int set_key(PyObject *keys, PyObject *name, PyObject *value) {
    int good = name && value && PyDict_SetItem(keys, name, value) == 0;
    Py_XDECREF(name);
    Py_XDECREF(value);
    return good;
}

/* Whether a string is these bytes; `made` is of ASCII letters. */
static int is_text(PyObject *made, const char *text, size_t size) {
    return (size_t)PyUnicode_GET_LENGTH(made) == size && !memcmp(PyUnicode_DATA(made), text, size);
}

/* Whether a subject's label is the value of a key field (archive.entry.NO_KEY_KINDS). */
static int is_key_kind(const char *kind, size_t size) {
    return !(size == 6 && !memcmp(kind, "source", 6)) && !(size == 11 && !memcmp(kind, "provisional", 11)) &&
           !(size == 7 && !memcmp(kind, "refused", 7));
}

/* Whether `extra` holds nothing that changes what an entry means: id, conn, frame. */
static int take_plain_extra(Reader *from) {
    const char *text;
    size_t size;
    uint64_t number;
    unsigned count;
    if (!take_map(from, &count)) return 0;
    while (count--) {
        if (!take_text(from, &text, &size)) return 0;
        if (size == 2 && !memcmp(text, "id", 2)) {
            if (!take_text(from, &text, &size) || !is_ascii(text, size)) return 0;
        } else if (size == 5 && !memcmp(text, "frame", 5)) {
            if (!take_number(from, &number)) return 0;
        } else if (size == 4 && !memcmp(text, "conn", 4)) {
            if (from->end - from->at < 2 || from->at[0] != 0xC4 || from->end - from->at - 2 < from->at[1]) return 0;
            from->at += 2 + from->at[1];
        } else return 0;
    }
    return 1;
}

/* Read a header of the usual kind; false if it is unusual (an exception may be set: clear it). */
static int take_header(Reader *from, const char *special, size_t special_size, PyObject *called, Head *head) {
    const char *subject, *text, *name;
    size_t subject_size, size, name_size;
    uint64_t number;
    unsigned count;
    if (from->at == from->end || *from->at++ != 0x98) return 0;
    if (!take_text(from, &subject, &subject_size) || !take_number(from, &number) || !take_number(from, &number)) return 0;
    head->received_ms = number / 1000;
    if (!take_text(from, &text, &size) || !(head->source = name_of(text, size))) return 0;
    if (!take_text(from, &text, &size) || !is_ascii(text, size)) return 0;
    if (size >= special_size && !memcmp(text, special, special_size)) return 0;
    if (!take_text(from, &text, &size) || !(head->form = name_of(text, size))) return 0;
    if (!take_map(from, &count) || !(head->keys = PyDict_New())) return 0;
    while (count--)
        if (!take_text(from, &name, &name_size) || !take_text(from, &text, &size) ||
            !set_key(head->keys, name_of(name, name_size), PyUnicode_DecodeUTF8(text, (Py_ssize_t)size, NULL)))
            return 0;
    const char *colon = memchr(subject, ':', subject_size);
    size_t kind = colon ? (size_t)(colon - subject) : subject_size;
    size_t label = colon ? subject_size - kind - 1 : 0;
    if (is_key_kind(subject, kind)) {
        const char *of = subject + subject_size - label;
        /* One string for all events of a subject: whoever looks its state up need not compare letters. */
        if (called && is_text(called, of, label)) head->label = Py_NewRef(called);
        else if (!(head->label = PyUnicode_DecodeUTF8(of, (Py_ssize_t)label, NULL))) return 0;
        if (!set_key(head->keys, name_of(subject, kind), Py_NewRef(head->label))) return 0;
    } else if (!is_ascii(subject, subject_size)) return 0;
    return take_plain_extra(from) && from->at == from->end;
}

static size_t brackets_in(const unsigned char *at, size_t size) {
    size_t found = 0;
    while (size) { /* counts of a byte each, so that a compiler can do many at once */
        size_t piece = size < 255 ? size : 255;
        unsigned char few = 0;
        for (size_t i = 0; i < piece; i++) few += (at[i] | 0x20) == '{'; /* [ and { differ in that bit only */
        found += few, at += piece, size -= piece;
    }
    return found;
}

static PyObject *text_at(PyObject *dict, PyObject *name) {
    PyObject *found = PyDict_GetItemWithError(dict, name);
    return found && PyUnicode_Check(found) ? found : NULL;
}

static PyObject *name_event, *name_type, *name_verb, *name_id, *name_data, *name_timestamp, *name_auth, *no_text, *event_fields;
static const int64_t TIME_MS_MAX = 253402300800000; /* archive.event.TIME_MS_MAX */

/* Return the event of a header and a payload's value, borrowed; NULL without an exception where it is unusual. */
static PyObject *event_of(PyObject *type, PyObject *client_time, PyObject *index, Head *head, PyObject *value) {
    PyObject *data = value, *kind = no_text, *received = NULL, *time = NULL, *event = NULL;
    int is_object = PyDict_CheckExact(value);
    if (!(received = PyLong_FromUnsignedLongLong(head->received_ms))) return NULL;
    if (is_object) {
        if (PyUnicode_CompareWithASCIIString(head->form, "event") == 0) {
            data = PyDict_GetItemWithError(value, name_data);
            if (!data) data = Py_None;
        } else if (PyUnicode_CompareWithASCIIString(head->form, "lo") == 0 && PyDict_Contains(value, name_auth)) goto end;
        PyObject *verb;
        if ((kind = text_at(value, name_event)) || (kind = text_at(value, name_type))) {
        } else if ((verb = PyDict_GetItemWithError(value, name_verb)) && PyDict_CheckExact(verb))
            kind = text_at(verb, name_id);
        if (!kind) kind = no_text;
        PyObject *stamp = PyDict_GetItemWithError(value, name_timestamp);
        int overflow = 0;
        int64_t stamp_ms = stamp && PyLong_CheckExact(stamp) ? PyLong_AsLongLongAndOverflow(stamp, &overflow) : -1;
        if (!overflow && 0 <= stamp_ms && stamp_ms < TIME_MS_MAX) time = Py_NewRef(stamp);
        else time = PyObject_CallFunctionObjArgs(client_time, value, received, NULL);
    } else time = Py_NewRef(received);
    if (!time || PyErr_Occurred()) goto end;
    PyObject *fields[] = {index, kind, head->source, head->keys, data, received, time};
    event = PyObject_Vectorcall(type, fields, 0, event_fields);
end:
    Py_XDECREF(received);
    Py_XDECREF(time);
    return event;
}

typedef struct {
    PyObject *type, *decode, *client_time;
    const char *special;
    Py_ssize_t special_size;
    size_t depth_max;
} Reading;

/* Remember what a subject is called, if it is still known. */
static void keep_label(Keys *keys, uint64_t number, PyObject *label) {
    Known *known = PyUnicode_IS_COMPACT_ASCII(label) ? known_of(keys, number) : NULL;
    if (known) Py_XSETREF(known->label, Py_NewRef(label));
}

/* Return the event of an opening, or NULL: with an exception, or, where it is unusual, without one. */
static PyObject *read_one(const Reading *how, PyObject *index, const Closed *one, Keys *keys) {
    size_t header = one->opening ? get_u32(one->opening + SALT) : 0;
    if (!one->opening || header > one->size - SALT - LENGTH) return NULL;
    const unsigned char *body = one->opening + SALT + LENGTH, *payload = body + header;
    size_t payload_size = one->size - SALT - LENGTH - header;
    Reader from = {body, payload};
    Head head = {0};
    PyObject *value = NULL, *event = NULL, *bytes = NULL, *checked = NULL;
    if (!take_header(&from, how->special, (size_t)how->special_size, one->label, &head)) goto end;
    if (head.label && head.label != one->label) keep_label(keys, get_u64(one->row + 4), head.label);
    if (brackets_in(payload, payload_size) > how->depth_max) goto end;
    if (!is_ascii((const char *)payload, payload_size) &&
        !(checked = PyUnicode_DecodeUTF8((const char *)payload, (Py_ssize_t)payload_size, NULL)))
        goto end;
    if ((bytes = PyBytes_FromStringAndSize((const char *)payload, (Py_ssize_t)payload_size)) &&
        (value = PyObject_CallOneArg(how->decode, bytes)))
        event = event_of(how->type, how->client_time, index, &head, value);
end:
    /* Whatever a decoder says about these bytes the twin will say again; only lack of memory is no answer to that. */
    if (!event && PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_Exception) && !PyErr_ExceptionMatches(PyExc_MemoryError))
        PyErr_Clear();
    head_drop(&head);
    Py_XDECREF(checked);
    Py_XDECREF(bytes);
    Py_XDECREF(value);
    return event;
}

static PyTypeObject *keys_type;

static PyObject *read_events(PyObject *self, PyObject *arguments) {
    PyObject *indices, *row_list, *place_list, *keys, *result = NULL, *left = NULL;
    Reading how;
    Batch batch = {0};
    Py_ssize_t depth_max;
    if (!PyArg_ParseTuple(arguments, "O!OO!O!y#OOOn", &PyList_Type, &indices, &row_list, &PyList_Type, &place_list, keys_type, &keys,
                          &how.special, &how.special_size, &how.type, &how.decode, &how.client_time, &depth_max))
        return NULL;
    how.depth_max = depth_max < 0 ? 0 : (size_t)depth_max;
    PyObject *numbers = PyList_AsTuple(indices), *places = PyList_AsTuple(place_list);
    if (numbers && places && batch_of_places(&batch, row_list, places, (Keys *)keys)) {
        if (PyTuple_GET_SIZE(numbers) != batch.count)
            PyErr_Format(PyExc_ValueError, "%zd rows and %zd indices", batch.count, PyTuple_GET_SIZE(numbers));
        else if (batch_open(&batch) && (left = PyList_New(0))) result = PyList_New(batch.count);
    }
    for (Py_ssize_t i = 0; result && i < batch.count; i++) {
        PyObject *one = read_one(&how, PyTuple_GET_ITEM(numbers, i), &batch.each[i], (Keys *)keys);
        if (!one && (PyErr_Occurred() || !append(left, PyLong_FromSsize_t(i)))) Py_CLEAR(result);
        else PyList_SET_ITEM(result, i, one ? one : Py_NewRef(Py_None));
    }
    batch_drop(&batch);
    Py_XDECREF(numbers);
    Py_XDECREF(places);
    if (result) return Py_BuildValue("NN", result, left);
    Py_XDECREF(left);
    return NULL;
}

/* Say whether JSON holds more values than it may (1), or is nested deeper (2), or neither (0); strings are passed over,
   one that does not end up to the end.  A value more shows as a comma or as a bracket that opens. */
static int excess_of(const unsigned char *at, size_t size, size_t values_max, Py_ssize_t depth_max) {
    const unsigned char *end = at + size;
    size_t values = 0;
    Py_ssize_t depth = 0, deepest = 0;
    while (at < end) {
        unsigned char byte = *at++;
        if (byte == '"') {
            while (at < end && *at != '"') at += *at == '\\' && at + 1 < end ? 2 : 1;
            if (at < end) at++;
        } else if (byte == ',') values++;
        else if ((byte | 0x20) == '{') {
            values++;
            if (++depth > deepest) deepest = depth;
        } else if ((byte | 0x20) == '}') depth--;
    }
    return values > values_max ? 1 : deepest > depth_max ? 2 : 0;
}

static PyObject *excess(PyObject *self, PyObject *arguments) {
    PyObject *payload;
    Py_ssize_t values_max, depth_max;
    if (!PyArg_ParseTuple(arguments, "O!nn", &PyBytes_Type, &payload, &values_max, &depth_max)) return NULL;
    return PyLong_FromLong(excess_of((unsigned char *)PyBytes_AS_STRING(payload), (size_t)PyBytes_GET_SIZE(payload),
                                     values_max < 0 ? 0 : (size_t)values_max, depth_max));
}

static PyObject *brackets(PyObject *self, PyObject *payload) {
    if (!PyBytes_Check(payload)) return PyErr_Format(PyExc_TypeError, "a payload is bytes");
    return PyLong_FromSize_t(brackets_in((unsigned char *)PyBytes_AS_STRING(payload), (size_t)PyBytes_GET_SIZE(payload)));
}

static PyMethodDef keys_methods[] = {
    {"put", (PyCFunction)keys_put, METH_VARARGS, "Remember the data key of a subject."},
    {"unknown", (PyCFunction)keys_unknown, METH_VARARGS, "Return the subjects of these rows whose key is not known."},
    {"clear", (PyCFunction)keys_clear, METH_NOARGS, "Forget all."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot keys_slots[] = {
    {Py_tp_new, keys_new}, {Py_tp_dealloc, keys_drop}, {Py_tp_methods, keys_methods}, {Py_sq_length, keys_length},
    {Py_tp_doc, "Data keys by the number of a subject: see archive.twin."}, {0, NULL},
};

static PyType_Spec keys_spec = {"archive._kernel.Keys", sizeof(Keys), 0, Py_TPFLAGS_DEFAULT, keys_slots};

/* --- the module ------------------------------------------------------------------------------------------ */

static PyMethodDef methods[] = {
    {"leaf_hashes", leaf_hashes, METH_O, "Return the leaf hash of each entry (RFC 6962, 2.1)."},
    {"pair_up", pair_up, METH_O, "Return the node over each two neighbours (RFC 6962, 2.1)."},
    {"unbundle", unbundle, METH_VARARGS, "Return the parts of a bundle, or None where a length runs over the end."},
    {"bundle_hashes", bundle_hashes, METH_O, "Return the leaf hash of each part of a bundle of leaves, or None."},
    {"seal_many", seal_many, METH_VARARGS, "Return leaves, rows and leaf hashes of these drafts."},
    {"parse_rows", parse_rows, METH_VARARGS, "Return each row taken apart, or None if one is malformed."},
    {"plain_rows", plain_rows, METH_VARARGS, "Return where the plain rows from a byte on end, their number, and their ids."},
    {"pick_rows", pick_rows, METH_VARARGS, "Return which rows of a bundle are wanted, or None if one is malformed."},
    {"open_rows", open_rows, METH_VARARGS, "Return (salt, header, payload) of each row, or None if it is not sound."},
    {"read_events", read_events, METH_VARARGS, "Return the event of each row, or None where it is unusual."},
    {"brackets", brackets, METH_O, "Return how many [ and { there are."},
    {"excess", excess, METH_VARARGS, "Return 1 for JSON with too many values, 2 where it is too deep, else 0."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "archive._kernel",
                                        "What is done for every entry, for many at once: see archive.kernel.", -1,
                                        methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernel(void) {
    crc_prepare();
    sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    aes_gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    if (!sha256 || !aes_gcm) {
        PyErr_SetString(PyExc_ImportError, "libcrypto has no SHA-256 or no AES-256-GCM");
        return NULL;
    }
    name_head = PyUnicode_InternFromString("head");
    name_tag_key = PyUnicode_InternFromString("tag_key");
    name_data_key = PyUnicode_InternFromString("data_key");
    name_raw = PyUnicode_InternFromString("raw");
    name_sequence = PyUnicode_InternFromString("sequence");
    name_header = PyUnicode_InternFromString("header");
    name_payload = PyUnicode_InternFromString("payload");
    name_event = PyUnicode_InternFromString("event");
    name_type = PyUnicode_InternFromString("type");
    name_verb = PyUnicode_InternFromString("verb");
    name_id = PyUnicode_InternFromString("id");
    name_data = PyUnicode_InternFromString("data");
    name_timestamp = PyUnicode_InternFromString("timestamp");
    name_auth = PyUnicode_InternFromString("auth");
    no_text = PyUnicode_InternFromString("");
    static const char *const fields[] = {"index", "type", "source", "keys", "data", "received_ms", "time_ms"};
    event_fields = PyTuple_New(7);
    for (int i = 0; event_fields && i < 7; i++) {
        PyObject *field = PyUnicode_InternFromString(fields[i]);
        if (!field) return NULL;
        PyTuple_SET_ITEM(event_fields, i, field);
    }
    if (!name_event || !name_type || !name_verb || !name_id || !name_data || !name_timestamp || !name_auth || !no_text ||
        !event_fields)
        return NULL;
    if (!name_head || !name_tag_key || !name_data_key || !name_raw || !name_sequence || !name_header || !name_payload)
        return NULL;
    PyObject *module = PyModule_Create(&definition);
    if (!module || !(keys_type = (PyTypeObject *)PyType_FromSpec(&keys_spec)) || PyModule_AddType(module, keys_type)) {
        Py_XDECREF(module);
        return NULL;
    }
    return module;
}
