/*
 * See batch.h.
 *
 * A batch that changes something has a number; the server remembers its answer until we say that all up to it
 * have arrived, so that it may be sent again when a link breaks.
 */
#include "batch.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "cleanup.h"

enum {
	SEQ_AT = 24,
	ACKED_AT = 32,
	IN_FLIGHT_FIRST = 64,
	ABANDON_AT_ONCE = 64,
	SLOW_MS = 20
}; /* places in the head of a request: fileop.h */

struct batch_client {
	struct sandbox *sandbox; /* borrowed: it owns us */
	uint8_t id[FILEOP_ID_SIZE];
	pthread_mutex_t lock; /* covers all below */
	uint64_t next_seq, next_handle;
	uint64_t *in_flight; /* numbers not answered yet, in no order */
	size_t in_flight_count, in_flight_size;
	/* Numbers whose batches may yet come there, and must not: their callers were told of a failure. */
	uint64_t *abandoned;
	size_t abandoned_count, abandoned_size;
	int64_t delay_ms; /* how long answers take, about; <0: none has come */
};

int batch_client_new(struct sandbox *sb, struct batch_client **out)
{
	struct batch_client *bc = calloc(1, sizeof *bc);

	if (!bc)
		return -ENOMEM;
	if (getrandom(bc->id, sizeof bc->id, 0) != sizeof bc->id) {
		free(bc);
		return -EIO;
	}
	bc->sandbox = sb;
	bc->next_seq = bc->next_handle = 1;
	bc->delay_ms = -1;
	pthread_mutex_init(&bc->lock, NULL);
	*out = bc;
	return 0;
}

void batch_client_free(struct batch_client *bc)
{
	if (!bc)
		return;
	pthread_mutex_destroy(&bc->lock);
	free(bc->in_flight);
	free(bc->abandoned);
	free(bc);
}

uint64_t batch_client_handle(struct batch_client *bc)
{
	AUTO_UNLOCK(&bc->lock);
	return bc->next_handle++;
}

bool batch_client_slow(struct batch_client *bc)
{
	AUTO_UNLOCK(&bc->lock);
	return bc->delay_ms >= SLOW_MS;
}

/* One that is quick says more of the link than one that is slow: it may have had work to do. */
static void note_delay(struct batch_client *bc, int64_t ms)
{
	AUTO_UNLOCK(&bc->lock);

	if (bc->delay_ms < 0 || ms < bc->delay_ms)
		bc->delay_ms = ms;
	else
		bc->delay_ms += (ms - bc->delay_ms) / 8;
}

/* For one number more than count. */
static int make_room(uint64_t **list, size_t count, size_t *size)
{
	if (count < *size)
		return 0;
	size_t n = *size ? *size * 2 : IN_FLIGHT_FIRST;
	uint64_t *more = reallocarray(*list, n, sizeof *more);
	if (!more)
		return -ENOMEM;
	*list = more;
	*size = n;
	return 0;
}

/* A new number, and up to which all have been answered. */
static int take_seq(struct batch_client *bc, uint64_t *seq, uint64_t *acked)
{
	AUTO_UNLOCK(&bc->lock);

	if (make_room(&bc->in_flight, bc->in_flight_count, &bc->in_flight_size) < 0 ||
		make_room(&bc->abandoned, bc->abandoned_count + bc->in_flight_count, &bc->abandoned_size) <
			0)
		return -ENOMEM;
	*seq = bc->next_seq++;
	*acked = *seq - 1;
	for (size_t i = 0; i < bc->in_flight_count; i++)
		if (bc->in_flight[i] <= *acked)
			*acked = bc->in_flight[i] - 1;
	bc->in_flight[bc->in_flight_count++] = *seq;
	return 0;
}

/* Up to which all have been answered, for one that is sent again. */
static uint64_t acked_now(struct batch_client *bc)
{
	AUTO_UNLOCK(&bc->lock);
	uint64_t acked = bc->next_seq - 1;

	for (size_t i = 0; i < bc->in_flight_count; i++)
		if (bc->in_flight[i] <= acked)
			acked = bc->in_flight[i] - 1;
	return acked;
}

static void drop_seq(struct batch_client *bc, uint64_t seq, bool answered)
{
	AUTO_UNLOCK(&bc->lock);

	if (!answered)
		bc->abandoned[bc->abandoned_count++] = seq; /* take_seq has made room */
	for (size_t i = 0; i < bc->in_flight_count; i++)
		if (bc->in_flight[i] == seq)
			bc->in_flight[i] = bc->in_flight[--bc->in_flight_count];
}

static void patch_u64(struct buf *b, size_t at, uint64_t v)
{
	for (int i = 0; i < 8; i++)
		b->data[at + (size_t)i] = (char)(v >> 8 * i);
}

void batch_unpin(struct batch_client *bc, uint64_t *pin)
{
	if (*pin)
		drop_seq(bc, *pin, false);
	*pin = 0;
}

void batch_init(struct batch *b, struct batch_client *bc, struct call *c)
{
	memset(b, 0, sizeof *b);
	b->client = bc;
	b->call = c;
	fileop_begin_request(&b->request, bc->id, 0, 0);
}

void batch_release(struct batch *b)
{
	buf_release(&b->request);
	buf_release(&b->reply);
}

static bool changes_nothing(enum fileop_code code)
{
	switch (code) {
	case FILEOP_PING:
	case FILEOP_GETATTR:
	case FILEOP_READ:
	case FILEOP_STATFS:
	case FILEOP_SEEK:
	case FILEOP_GETXATTR:
	case FILEOP_LISTXATTR:
	case FILEOP_ABANDON:
		return true;
	default:
		return false; /* READDIR moves its handle on */
	}
}

/* The call ends with what has been written so far; an OPEN with its flags and a mode. */
static bool only_looks(const struct batch *b)
{
	size_t n = b->request.size;
	struct reader r;

	switch (b->code) {
	case FILEOP_READDIR:
	case FILEOP_REWINDDIR:
	case FILEOP_CLOSE:
		return true;
	case FILEOP_OPEN:
		if (n < 8)
			return false;
		reader_init(&r, b->request.data + n - 8, 8);
		return !(reader_u32(&r) & (FILEOP_O_CREATE | FILEOP_O_TRUNC | FILEOP_O_STAGE));
	default:
		return changes_nothing(b->code);
	}
}

static void end_call(struct batch *b)
{
	if (b->open_call) {
		fileop_end_call(&b->request, b->open_call);
		b->changes |= !only_looks(b);
	}
	b->open_call = 0;
}

struct buf *batch_add(struct batch *b, enum fileop_code code, unsigned opflags)
{
	end_call(b);
	b->code = code;
	b->open_call = fileop_begin_call(&b->request, code, opflags);
	b->count++;
	if (!changes_nothing(code))
		b->mutates = true;
	return &b->request;
}

/* Sends the request as it is, and reads the head of its answer. */
static int exchange(struct batch *b)
{
	struct batch_client *bc = b->client;
	struct fileop_reply head;
	int64_t began = call_now_ms();
	int err = sandbox_batch(
		bc->sandbox, b->call, b->mutates, b->changes, b->request.data, b->request.size, &b->reply);

	if (err)
		return err;
	note_delay(bc, call_now_ms() - began);
	reader_init(&b->results, b->reply.data, b->reply.size);
	if (fileop_get_reply(&b->results, b->count, &head) < 0)
		return call_fault(b->call, EPROTO, NULL, "%s: its server's answer is no answer to a batch",
			sandbox_name(bc->sandbox));
	sandbox_note_boot(bc->sandbox, head.boot, head.workspace_ino, head.avail);
	return 0;
}

static int end_request(struct batch *b)
{
	end_call(b);
	fileop_end_request(&b->request, b->count);
	return buf_error(&b->request);
}

/*
 * A change that its caller was told has failed must not be made after what is sent now: the name that a late UNLINK takes may be another
 * file's by then.
 */
static int abandon_some(struct batch_client *bc, struct call *c, const uint64_t *list, size_t n)
{
	AUTO_BATCH b = {.count = 0};
	struct reader body;

	batch_init(&b, bc, c);
	for (size_t i = 0; i < n; i++)
		buf_u64(batch_add(&b, FILEOP_ABANDON, 0), list[i]);
	int err = end_request(&b);
	if (!err)
		err = exchange(&b);
	/* A server that does not know the call refuses nothing, then and now. */
	for (size_t i = 0; i < n && !err; i++)
		err = batch_next(&b, &body) == -ENOMEM ? -ENOMEM : 0;
	if (err)
		return err;
	AUTO_UNLOCK(&bc->lock);
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < bc->abandoned_count; k++)
			if (bc->abandoned[k] == list[i])
				bc->abandoned[k--] = bc->abandoned[--bc->abandoned_count];
	return 0;
}

/* All that there are: each time there are fewer, or an error ends it. */
static int abandon(struct batch_client *bc, struct call *c)
{
	uint64_t list[ABANDON_AT_ONCE];

	for (;;) {
		pthread_mutex_lock(&bc->lock);
		size_t n = bc->abandoned_count < ABANDON_AT_ONCE ? bc->abandoned_count : ABANDON_AT_ONCE;
		for (size_t i = 0; i < n; i++)
			list[i] = bc->abandoned[i];
		pthread_mutex_unlock(&bc->lock);
		int err = n ? abandon_some(bc, c, list, n) : 0;
		if (err || !n)
			return err;
	}
}

int batch_send(struct batch *b)
{
	struct batch_client *bc = b->client;
	uint64_t seq = 0, acked;
	int err = end_request(b);

	if (!err && b->mutates)
		err = abandon(bc, b->call);
	if (!err && b->pin && *b->pin) {
		seq = *b->pin;
		acked = acked_now(bc);
	} else if (!err && b->mutates) {
		err = take_seq(bc, &seq, &acked);
	}
	if (err)
		return err;
	if (seq) {
		patch_u64(&b->request, SEQ_AT, seq);
		patch_u64(&b->request, ACKED_AT, acked);
	}
	err = exchange(b);
	if (b->pin)
		*b->pin = err ? seq : 0;
	if (seq && !(b->pin && err))
		drop_seq(bc, seq, !err);
	return err;
}

/* What a person must know although a program has its errno: it is the sandbox's state, not the call's mistake. */
static void note_state(struct batch *b, int err)
{
	struct sandbox *sb = b->client->sandbox;
	const char *name = sandbox_name(sb);
	uint64_t avail = sandbox_avail(sb);

	if (err == -ENOSPC)
		call_fault(b->call, ENOSPC, NULL,
			"%s: no room for it: %llu MiB are left in workspace/; remove something there, or mount "
			"with a "
			"smaller -o min-free=",
			name, (unsigned long long)(avail >> 20));
	else if (err == -EDQUOT)
		call_fault(b->call, EDQUOT, NULL, "%s: the quota of its files is used up", name);
	else if (err == -EROFS)
		call_fault(b->call, EROFS, NULL,
			"%s: this part of the sandbox cannot be written; workspace/ and root/tmp can", name);
	else if (err == -EIO)
		call_fault(b->call, EIO, NULL, "%s: the disk of the sandbox failed", name);
	else
		return;
	sandbox_note_fault(sb, &b->call->fault);
}

int batch_next(struct batch *b, struct reader *body)
{
	int err = fileop_get_result(&b->results, body);

	if (err < 0)
		note_state(b, err);
	return err;
}
