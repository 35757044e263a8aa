/*
 * read and read/stream. Owns the open file of each stream.
 */
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "common.h"
#include "json_make.h"
#include "mime.h"
#include "routes.h"
#include "text.h"

enum { READ_MAX = 32 << 20, SNIFF = 8192, CHUNK = 65535 };

struct source {
	int fd;
	uint64_t size;
	const char *mime;
	bool base64;
};

/* Opens a regular file to be read and finds out how to show it. 0 or a negative errno; -EISDIR for all that is no file, -EFBIG for a FIFO. */
static int source_open(const char *path, const char *encoding, struct source *out)
{
	/* Looked at before it is opened: opening a FIFO would wake up its writer. */
	struct stat st;
	if (stat(path, &st) < 0)
		return -errno;
	if (S_ISFIFO(st.st_mode))
		return -EFBIG;
	if (!S_ISREG(st.st_mode))
		return -EISDIR;
	AUTO_FD int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EISDIR;
	out->mime = mime_by_name(path);
	if (!out->mime) {
		char head[SNIFF];
		ssize_t n = pread(fd, head, sizeof head, 0);
		if (n < 0)
			return -errno;
		out->mime = mime_by_content(head, (size_t)n);
	}
	out->base64 = !mime_is_text(out->mime);
	if (encoding && strcmp(encoding, "base64") == 0)
		out->base64 = true;
	else if (encoding && (!strcmp(encoding, "utf-8") || !strcmp(encoding, "utf8")))
		out->base64 = false;
	out->size = (uint64_t)st.st_size;
	out->fd = steal_fd(&fd);
	return 0;
}

/* Reads to the end, at most READ_MAX + 1 bytes. Files of procfs have no size, so the end is what says it. */
static int source_read(struct source *s, struct buf *out)
{
	for (;;) {
		size_t left = READ_MAX + 1 - out->size;
		size_t step = s->size > out->size ? (size_t)(s->size - out->size) + 1 : SNIFF;
		if (step > left)
			step = left;
		if (!step)
			return -EFBIG;
		char *to = buf_reserve(out, step);
		if (!to)
			return -ENOMEM;
		ssize_t n = read(s->fd, to, step);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		out->size += (size_t)n;
		if (!n)
			return out->size > READ_MAX ? -EFBIG : 0;
	}
}

static enum MHD_Result read_failed(struct request *r, const char *path, uint64_t size, int err)
{
	static const char operation[] = "file.read";
	if (err == -ENOENT || err == -ENOTDIR || err == -EISDIR || err == -ELOOP || err == -ENXIO)
		return reply_no_file(r, path, operation);
	if (err == -EFBIG) {
		struct json_object *context = path_context(path, operation);
		json_add(context, "actualSize", json_object_new_uint64(size));
		json_add(context, "maxSize", json_object_new_int(READ_MAX));
		return reply_error(r, ERR_FILE_TOO_LARGE, context, operation, "File too large: %s", path);
	}
	AUTO_BUF why = BUF_INIT;
	text_errno(&why, err);
	return reply_error(r, ERR_INTERNAL, path_context(path, operation), operation,
		"Failed to read file '%s': %s, open '%s'", path, why.data ? why.data : "", path);
}

static enum MHD_Result send_content(
	struct request *r, const char *given, const char *path, struct source *s)
{
	AUTO_BUF content = BUF_INIT;
	AUTO_BUF shown = BUF_INIT;
	int err = s->size > READ_MAX ? -EFBIG : source_read(s, &content);
	if (err < 0)
		return read_failed(r, path, s->size, err);
	size_t size = content.size;
	struct json_object *text;
	if (s->base64) {
		text_base64(&shown, content.data ? content.data : "", size);
		text = buf_error(&shown)
				   ? NULL
				   : json_object_new_string_len(shown.data ? shown.data : "", (int)shown.size);
	} else {
		text = text_json(content.data ? content.data : "", size);
	}
	if (!text)
		return reply_error(r, ERR_INTERNAL, NULL, "file.read", "out of memory");
	struct json_object *o = path_answer(given);
	json_add(o, "content", text);
	json_add(o, "encoding", json_object_new_string(s->base64 ? "base64" : "utf-8"));
	json_add(o, "isBinary", json_object_new_boolean(s->base64));
	json_add(o, "mimeType", json_object_new_string(s->mime));
	json_add(o, "size", json_object_new_uint64(size));
	return reply_json(r, 200, o);
}

static char *read_path(struct request *r, const char **given, enum MHD_Result *result)
{
	enum session_kind kind;
	const char *session;
	if (!request_json(r, false, result) || !run_session(r, false, &kind, &session, result))
		return NULL;
	return request_session_path(r, "path", ERR_VALIDATION, given, result);
}

enum MHD_Result route_read(struct request *r)
{
	enum MHD_Result result;
	const char *given;
	AUTO_FREE char *path = read_path(r, &given, &result);
	if (!path)
		return result;
	struct source s = {.fd = -1};
	int err = source_open(path, json_text(r->json, "encoding", NULL), &s);
	if (err < 0)
		return read_failed(r, path, 0, err);
	result = send_content(r, given, path, &s);
	close(s.fd);
	return result;
}

/* --- the stream --- */

struct reading {
	struct stream stream; /* first: the glue knows it by this */
	struct source source;
	char *path;
	int err;
	bool begun;
	uint64_t done;
	struct buf cut; /* the beginning of a character that a chunk ended in */
};

static int reading_error(struct reading *g, struct buf *out)
{
	AUTO_BUF words = BUF_INIT;
	if (g->err == -ENOENT || g->err == -ENOTDIR || g->err == -EISDIR || g->err == -ELOOP)
		buf_printf(&words, "File not found: %s", g->path);
	else {
		text_errno(&words, g->err);
		buf_printf(&words, ", read '%s'", g->path);
	}
	struct json_object *o = json_object_new_object();
	json_add(o, "type", json_object_new_string("error"));
	json_add(o, "error", text_json(words.data ? words.data : "", words.size));
	return event_add(out, o) < 0 ? -ENOMEM : 0;
}

static int reading_begin(struct reading *g, struct buf *out)
{
	struct source *s = &g->source;
	struct json_object *o = json_object_new_object();
	json_add(o, "type", json_object_new_string("metadata"));
	json_add(o, "mimeType", json_object_new_string(s->mime));
	json_add(o, "size", json_object_new_uint64(s->size));
	json_add(o, "isBinary", json_object_new_boolean(s->base64));
	json_add(o, "encoding", json_object_new_string(s->base64 ? "base64" : "utf-8"));
	g->begun = true;
	return event_add(out, o) < 0 ? -ENOMEM : 1;
}

static int reading_chunk(struct reading *g, const char *p, size_t n, bool last, struct buf *out)
{
	AUTO_BUF shown = BUF_INIT;
	if (g->source.base64) {
		text_base64(&shown, p, n);
	} else {
		buf_add(&g->cut, p, n);
		if (buf_error(&g->cut) < 0)
			return -ENOMEM;
		if (g->cut.size)
			buf_consume(&g->cut, text_repair(&shown, g->cut.data, g->cut.size, last));
	}
	if (!shown.size)
		return buf_error(&shown);
	struct json_object *o = json_object_new_object();
	json_add(o, "type", json_object_new_string("chunk"));
	json_add(o, "data", json_object_new_string_len(shown.data, (int)shown.size));
	return event_add(out, o);
}

static int reading_next(struct stream *stream, struct buf *out)
{
	struct reading *g = (struct reading *)stream;
	if (g->err < 0)
		return reading_error(g, out);
	if (!g->begun)
		return reading_begin(g, out);
	AUTO_FREE char *chunk = malloc(CHUNK);
	if (!chunk)
		return -ENOMEM;
	ssize_t n = read(g->source.fd, chunk, CHUNK);
	if (n < 0 && errno == EINTR)
		return 1;
	if (n < 0) {
		g->err = -errno;
		return reading_error(g, out);
	}
	g->done += (uint64_t)n;
	if (n > 0)
		return reading_chunk(g, chunk, (size_t)n, false, out) < 0 ? -ENOMEM : 1;
	if (!g->source.base64 && reading_chunk(g, "", 0, true, out) < 0)
		return -ENOMEM;
	struct json_object *o = json_object_new_object();
	json_add(o, "type", json_object_new_string("complete"));
	json_add(o, "bytesRead", json_object_new_uint64(g->done));
	return event_add(out, o) < 0 ? -ENOMEM : 0;
}

static void reading_release(struct stream *stream)
{
	struct reading *g = (struct reading *)stream;
	if (g->source.fd >= 0)
		close(g->source.fd);
	buf_release(&g->cut);
	free(g->path);
	free(g);
}

enum MHD_Result route_read_stream(struct request *r)
{
	enum MHD_Result result;
	const char *given;
	AUTO_FREE char *path = read_path(r, &given, &result);
	if (!path)
		return result;
	struct reading *g = calloc(1, sizeof *g);
	if (!g)
		return reply_error(r, ERR_INTERNAL, NULL, "file.read", "out of memory");
	g->stream = (struct stream){.next = reading_next, .release = reading_release};
	g->source.fd = -1;
	g->err = source_open(path, NULL, &g->source);
	g->path = steal(path);
	return reply_stream(r, "text/event-stream", &g->stream);
}
