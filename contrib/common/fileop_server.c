/*
 * The server of the file protocol: batches and what they are answered with. Owns the server itself
 * (its parts live in the rooms of fileop_internal.h), the walk through a batch, and the room that is to stay free on
 * the workspace's file system. Knows the calls only as a table.
 */
#include "fileop_server.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/statvfs.h>

#include "cleanup.h"
#include "fileop_internal.h"

enum {
	RESULT_HEAD = 8, /* length and error */
	AVAIL_AT = 8 + FILEOP_ID_SIZE + 8,
	COUNT_AT = AVAIL_AT + 8
};

int fileop_server_new(const struct fileop_server_config *config, struct fileop_server **out)
{
	struct fileop_server *s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->workspace = strdup(config->workspace);
	s->min_free = config->min_free;
	s->mark = config->mark;
	if (!s->workspace || getrandom(s->boot, sizeof(s->boot), 0) != (ssize_t)sizeof(s->boot)) {
		int err = s->workspace ? -EIO : -ENOMEM;
		free(s->workspace);
		free(s);
		return err;
	}
	AUTO_FD int probe = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct stat root, through;
	s->has_proc = probe >= 0 && fstat(probe, &root) == 0 &&
				  stat(fileop_proc_name(probe).text, &through) == 0 &&
				  root.st_ino == through.st_ino && root.st_dev == through.st_dev;
	pthread_mutex_init(&s->lock, NULL);
	pthread_mutex_init(&s->special_lock, NULL);
	pthread_cond_init(&s->remembered, NULL);
	s->expired_ms = fileop_now_ms();
	*out = s;
	return 0;
}

void fileop_server_free(struct fileop_server *s)
{
	if (!s)
		return;
	fileop_clients_free(s);
	pthread_cond_destroy(&s->remembered);
	pthread_mutex_destroy(&s->special_lock);
	pthread_mutex_destroy(&s->lock);
	free(s->workspace);
	free(s);
}

/* --- space --- */

/* Bytes that may still be written; 0 if nobody can tell. */
static int available(struct fileop_server *s, uint64_t *out)
{
	struct statvfs fs;
	*out = 0;
	if (statvfs(s->workspace, &fs) < 0)
		return -errno;
	uint64_t bytes;
	if (__builtin_mul_overflow((uint64_t)fs.f_bavail, (uint64_t)fs.f_frsize, &bytes))
		bytes = UINT64_MAX;
	*out = bytes > s->min_free ? bytes - s->min_free : 0;
	return 0;
}

int fileop_server_check_space(struct fileop_server *s, uint64_t n)
{
	uint64_t left;
	if (!s->min_free || available(s, &left) < 0)
		return 0;
	return left == 0 || left < n ? -ENOSPC : 0;
}

int fileop_check_space(struct fileop_batch *b, uint64_t dev, uint64_t n)
{
	if (!b->server->min_free || dev != b->workspace_dev)
		return 0;
	return fileop_server_check_space(b->server, n);
}

int fileop_check_creation(struct fileop_batch *b, char *path)
{
	if (!b->server->min_free)
		return 0;
	AUTO_PLACE at = FILEOP_NO_PLACE;
	struct statx st;
	/* Whatever is wrong with the path, the creation itself will say. */
	if (fileop_place_parent(path, &at) || fileop_statx(at.dir, "", &st))
		return 0;
	return fileop_check_space(b, fileop_statx_dev(&st), 0);
}

/* --- batches --- */

struct request {
	uint8_t client[FILEOP_ID_SIZE];
	uint64_t seq, acked;
	uint32_t count;
	struct reader calls;
};

/* Reads the head and sees that all calls are there, before any is done. */
static int read_request(const void *p, size_t size, struct request *q)
{
	struct reader r;
	if (size > FILEOP_MAX_BATCH)
		return -EBADMSG;
	reader_init(&r, p, size);
	uint32_t magic = reader_u32(&r);
	uint16_t version = reader_u16(&r);
	uint16_t zero = reader_u16(&r);
	const void *client = reader_take(&r, FILEOP_ID_SIZE);
	q->seq = reader_u64(&r);
	q->acked = reader_u64(&r);
	q->count = reader_u32(&r);
	if (r.bad || magic != FILEOP_MAGIC || version != FILEOP_VERSION || zero ||
		q->count > FILEOP_MAX_COUNT)
		return -EBADMSG;
	memcpy(q->client, client, FILEOP_ID_SIZE);
	q->calls = r;
	for (uint32_t i = 0; i < q->count; i++) {
		uint32_t length = reader_u32(&r);
		if (length < 4 || !reader_take(&r, length))
			return -EBADMSG;
	}
	return r.bad || r.left ? -EBADMSG : 0;
}

static void patch_u64(struct buf *b, size_t at, uint64_t v)
{
	buf_patch_u32(b, at, (uint32_t)v);
	buf_patch_u32(b, at + 4, (uint32_t)(v >> 32));
}

static void begin_reply(struct fileop_batch *b, uint32_t count, struct buf *reply)
{
	buf_u32(reply, FILEOP_MAGIC);
	buf_u16(reply, FILEOP_VERSION);
	buf_u16(reply, 0);
	buf_add(reply, b->server->boot, FILEOP_ID_SIZE);
	buf_u64(reply, b->workspace_ino ^ b->server->mark);
	buf_u64(reply, 0);
	buf_u32(reply, count);
}

static void put_result(struct buf *reply, size_t at, int err)
{
	if (err)
		reply->size = at + RESULT_HEAD;
	buf_patch_u32(reply, at, (uint32_t)(reply->size - at - 4));
	buf_patch_u32(reply, at + 4, (uint32_t)-err);
}

/* Appends one call's result; skip: its error without doing it. Returns the error; -ENOMEM with reply->failed: no room for even that. */
static int run_call(struct fileop_batch *b, struct reader *call, int skip, struct buf *reply)
{
	size_t at = reply->size;
	buf_u32(reply, 0);
	buf_u32(reply, 0);
	if (buf_error(reply))
		return -ENOMEM;
	unsigned code = reader_u16(call);
	unsigned opflags = reader_u16(call);
	int err = skip;
	if (!err && b->room < FILEOP_RESULT_ROOM)
		err = -EMSGSIZE;
	fileop_call_fn *fn = fileop_find_call(code);
	if (!err)
		err = fn ? fn(b, call, reply) : -ENOSYS;
	if (buf_error(reply)) {
		/* An append failed; what is there is whole, and room for a head was made before. */
		reply->failed = false;
		err = -ENOMEM;
	}
	if (!err && reply->size - at - RESULT_HEAD > b->room)
		err = -EMSGSIZE;
	put_result(reply, at, err);
	return err && (skip || opflags & FILEOP_MUST) ? -ECANCELED : 0;
}

static int run_calls(struct fileop_batch *b, struct request *q, struct buf *reply)
{
	size_t begin = reply->size;
	begin_reply(b, q->count, reply);
	int skip = 0;
	for (uint32_t i = 0; i < q->count; i++) {
		size_t used = reply->size - begin + (size_t)(q->count - i) * RESULT_HEAD;
		b->room = used < FILEOP_MAX_BATCH ? FILEOP_MAX_BATCH - used : 0;
		uint32_t length = reader_u32(&q->calls);
		struct reader call;
		reader_init(&call, reader_take(&q->calls, length), length);
		skip = run_call(b, &call, skip, reply);
		if (buf_error(reply))
			return -ENOMEM;
	}
	uint64_t left;
	if (available(b->server, &left) < 0)
		left = 0; /* no workspace, nothing to write to */
	if (buf_error(reply))
		return -ENOMEM;
	patch_u64(reply, begin + AVAIL_AT, left);
	return 0;
}

/* What was done once and cannot be told any more is not done twice. */
static int refuse_calls(struct fileop_batch *b, const struct request *q, struct buf *reply)
{
	begin_reply(b, q->count, reply);
	for (uint32_t i = 0; i < q->count; i++) {
		buf_u32(reply, 4);
		buf_u32(reply, ESTALE);
	}
	return buf_error(reply);
}

/* A number used for two batches is the client's fault; it is not to be told what it did not ask. */
static bool is_reply_of(const struct request *q, const char *reply)
{
	struct reader r;
	reader_init(&r, reply + COUNT_AT, 4);
	return reader_u32(&r) == q->count;
}

static int run_once(struct fileop_batch *b, struct request *q, struct buf *reply)
{
	struct fileop_memory *mem = NULL;
	if (!q->seq)
		return run_calls(b, q, reply);
	size_t begin = reply->size;
	int is = fileop_replay_begin(b->server, b->client, q->seq, q->acked, &mem, reply);
	if (is < 0)
		return is;
	if (is == FILEOP_REPLAY_REPEATED && is_reply_of(q, reply->data + begin))
		return 0;
	if (is != FILEOP_REPLAY_NEW) {
		reply->size = begin;
		return refuse_calls(b, q, reply);
	}
	int err = run_calls(b, q, reply);
	fileop_replay_end(
		b->server, b->client, mem, err ? NULL : reply->data + begin, err ? 0 : reply->size - begin);
	return err;
}

int fileop_server_run(struct fileop_server *s, const void *request, size_t size, struct buf *reply)
{
	struct request q;
	struct fileop_batch b = {.server = s};
	int err = read_request(request, size, &q);
	if (err)
		return err;
	struct statx st;
	int64_t now = fileop_now_ms();
	fileop_expire(s, now);
	b.client = fileop_client_enter(s, q.client, now);
	if (!b.client)
		return -ENOMEM;
	if (statx(AT_FDCWD, s->workspace, 0, STATX_BASIC_STATS, &st) == 0) {
		b.workspace_dev = fileop_statx_dev(&st);
		b.workspace_ino = st.stx_ino;
	}
	err = run_once(&b, &q, reply);
	fileop_client_leave(s, b.client, fileop_now_ms());
	return err;
}
