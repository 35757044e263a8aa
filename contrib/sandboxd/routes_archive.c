/*
 * Whole directories as one stream, our own routes. Owns the state of each download, and for each upload the thread that unpacks it from a pipe.
 *
 *   GET /api/sandboxfs/archive?path=P[&compression=none|gzip|zstd|lz4][&exclude=G]...[&gitignore=1][&frames=1]
 *       -> a pax tar as it goes. What fails after it has begun cuts the connection; with frames (frames.h) it is told: DATA of stream
 *       1 is the archive, of stream 2 lines about what could not be packed, EXIT has 0 or the first errno, and with
 *       FRAME_EXIT_LOST the archive is not whole.
 *   PUT /api/sandboxfs/archive?path=P[&replace=1]     the body: a tar, plain or compressed, unpacked as it comes
 *       -> {"success":true,"entries","bytes"}; 500 FILESYSTEM_ERROR, context {"errno","entries","bytes","path","stderr"}. With replace
 *       the directory then holds nothing else, and all or nothing happens.
 */
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "common.h"
#include "frames.h"
#include "json_make.h"
#include "routes.h"
#include "tar.h"
#include "text.h"

enum { PIPE_SIZE = 1 << 20, UNPACK_STACK = 512 << 10 };

static const char archive_type[] = "application/x-tar";

/* --- download --- */

struct download {
	struct stream stream; /* first: the glue knows it by this */
	struct tar_writer *writer;
	bool frames;
};

static void frame(struct buf *out, enum frame_type type, unsigned stream, size_t n)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	buf_u8(out, (uint8_t)type);
	buf_u8(out, (uint8_t)stream);
	buf_u16(out, 0);
	buf_u32(out, (uint32_t)n);
	buf_u64(out, (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000);
}

static int download_next(struct stream *stream, struct buf *out)
{
	struct download *d = (struct download *)stream;
	if (!d->frames)
		return tar_writer_next(d->writer, out);
	AUTO_BUF piece = BUF_INIT;
	int err = 0;
	int more = tar_writer_next(d->writer, &piece);
	const char *notes = tar_writer_notes(d->writer, &err);
	for (size_t at = 0; at < piece.size;) {
		size_t n = piece.size - at < FRAME_MAX ? piece.size - at : FRAME_MAX;
		frame(out, FRAME_DATA, 1, n);
		buf_add(out, piece.data + at, n);
		at += n;
	}
	if (*notes) {
		size_t n = strlen(notes) < FRAME_MAX ? strlen(notes) : FRAME_MAX;
		frame(out, FRAME_DATA, 2, n);
		buf_add(out, notes, n);
	}
	if (more > 0)
		return buf_error(&piece) < 0 ? -ENOMEM : 1;
	frame(out, FRAME_EXIT, 0, 8);
	buf_u32(out, (uint32_t)(more < 0 ? -more : err));
	buf_u32(out, more < 0 ? FRAME_EXIT_LOST : 0u);
	return 0;
}

static void download_release(struct stream *stream)
{
	struct download *d = (struct download *)stream;
	tar_writer_free(d->writer);
	free(d);
}

static bool query_flag(struct request *r, const char *name)
{
	const char *s = request_query(r, name);
	return s && *s && strcmp(s, "0") != 0 && strcmp(s, "false") != 0;
}

/* The directory of the query, a new absolute path; NULL: *out is the answer. */
static char *query_directory(struct request *r, const char *operation, enum MHD_Result *out)
{
	const char *given = request_query(r, "path"), *words;
	if (!r->json)
		r->json = json_object_new_object();
	if (!r->json || (given && !json_add(r->json, "path", json_object_new_string(given)))) {
		*out = reply_json(r, 500, NULL);
		return NULL;
	}
	char *path = request_path(r, "path", ERR_VALIDATION, &words, out);
	struct stat st;
	if (!path)
		return NULL;
	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		return path;
	*out = errno == ENOENT ? reply_no_file(r, path, operation)
						   : reply_error(r, ERR_NOT_DIRECTORY, path_context(path, operation),
								 operation, "Not a directory: %s", path);
	free(path);
	return NULL;
}

static enum MHD_Result add_glob(
	void *arg, enum MHD_ValueKind kind, const char *name, const char *value)
{
	(void)kind;
	if (strcmp(name, "exclude") != 0 || !value || !*value)
		return MHD_YES;
	return tar_filter_glob(arg, value) < 0 ? MHD_NO : MHD_YES;
}

static enum MHD_Result reply_errno(
	struct request *r, const char *path, const char *operation, int err)
{
	AUTO_BUF why = BUF_INIT;
	text_errno(&why, err);
	return reply_filesystem(r, path, operation, -1, "%s", why.data ? why.data : "EIO");
}

enum MHD_Result route_archive_get(struct request *r)
{
	static const char operation[] = "archive.read";
	enum MHD_Result result;
	enum tar_compression compression = TAR_PLAIN;
	const char *word = request_query(r, "compression");
	struct tar_filter filter = {NULL, NULL};
	if (word && !tar_compression_find(word, &compression))
		return reply_error(
			r, ERR_VALIDATION, NULL, operation, "compression is none, gzip, zstd or lz4");
	AUTO_FREE char *path = query_directory(r, operation, &result);
	if (!path)
		return result;
	MHD_get_connection_values(r->connection, MHD_GET_ARGUMENT_KIND, add_glob, &filter);
	struct download *d = calloc(1, sizeof *d);
	int err = d ? 0 : -ENOMEM;
	if (!err && query_flag(r, "gitignore"))
		err = tar_filter_gitignore(r->server, path, &filter);
	if (!err)
		err = tar_writer_new(path, &filter, compression, &d->writer);
	if (err < 0) {
		tar_filter_release(&filter);
		free(d);
		return reply_errno(r, path, operation, err);
	}
	d->frames = query_flag(r, "frames");
	d->stream = (struct stream){.next = download_next, .release = download_release};
	return reply_stream(r, d->frames ? "application/octet-stream" : archive_type, &d->stream);
}

/* --- upload --- */

struct upload {
	struct server *server;
	char *path;
	bool replace;
	int in; /* the pipe; -1: closed */
	int out;
	pthread_t thread;
	bool joined;
	/* The thread's until it is joined. */
	struct tar_result result;
	int err;
};

static void *upload_thread(void *arg)
{
	struct upload *u = arg;
	u->err = u->replace ? tar_replace(u->server, u->out, u->path, &u->result)
						: tar_unpack(u->server, u->out, u->path, &u->result);
	/* Who still writes learns that nobody reads. */
	close(u->out);
	return NULL;
}

static void upload_end(struct upload *u)
{
	if (u->in >= 0)
		close(u->in);
	u->in = -1;
	if (!u->joined)
		pthread_join(u->thread, NULL);
	u->joined = true;
}

static void upload_release(void *arg)
{
	struct upload *u = arg;
	/* A client that has gone leaves an archive that is cut. */
	upload_end(u);
	tar_result_release(&u->result);
	free(u->path);
	free(u);
}

/* Begins at the first byte (or at the end of an empty body). NULL: *out is the answer that is due at the end. */
static struct upload *upload_begin(struct request *r, enum MHD_Result *out)
{
	AUTO_FREE char *path = query_directory(r, "archive.write", out);
	if (!path)
		return NULL;
	struct upload *u = calloc(1, sizeof *u);
	int ends[2];
	if (!u || pipe2(ends, O_CLOEXEC) < 0) {
		*out = reply_errno(r, path, "archive.write", u ? -errno : -ENOMEM);
		free(u);
		return NULL;
	}
	/* Fewer switches between the threads; where it is refused the usual size does. */
	(void)fcntl(ends[1], F_SETPIPE_SZ, PIPE_SIZE);
	*u = (struct upload){.server = r->server, .in = ends[1], .out = ends[0]};
	u->path = steal(path);
	u->replace = query_flag(r, "replace");
	pthread_attr_t attr;
	pthread_attr_init(&attr);
	int err = pthread_attr_setstacksize(&attr, UNPACK_STACK);
	if (!err)
		err = pthread_create(&u->thread, &attr, upload_thread, u);
	pthread_attr_destroy(&attr);
	if (err) {
		*out = reply_errno(r, u->path, "archive.write", -err);
		close(ends[0]);
		close(ends[1]);
		free(u->path);
		free(u);
		return NULL;
	}
	return u;
}

enum MHD_Result body_archive_put(struct request *r, const char *data, size_t n)
{
	if (!r->feed) {
		/* A request that is wrong is answered at its end: until then there is nowhere to put an answer. */
		const char *path = request_query(r, "path");
		struct stat st;
		enum MHD_Result ignored;
		AUTO_BUF whole = BUF_INIT;
		buf_printf(&whole, "%s%s%s", path && *path == '/' ? "" : r->server->workspace,
			path && *path == '/' ? "" : "/", path ? path : "");
		if (!path || !*path || buf_error(&whole) < 0 || stat(whole.data, &st) < 0 ||
			!S_ISDIR(st.st_mode))
			return MHD_YES;
		r->feed = upload_begin(r, &ignored);
		r->feed_release = upload_release;
		if (!r->feed)
			return MHD_NO;
	}
	struct upload *u = r->feed;
	while (n && u->in >= 0) {
		ssize_t done = write(u->in, data, n);
		if (done > 0) {
			data += done;
			n -= (size_t)done;
		} else if (errno != EINTR) {
			/* It has failed, or has seen the end: the rest is of no use. */
			close(u->in);
			u->in = -1;
		}
	}
	return MHD_YES;
}

static enum MHD_Result answer_upload(struct request *r, struct upload *u)
{
	if (u->err == 0) {
		struct json_object *o = path_answer(u->path);
		json_add(o, "entries", json_object_new_uint64(u->result.entries));
		json_add(o, "bytes", json_object_new_uint64(u->result.bytes));
		return reply_json(r, 200, o);
	}
	const char *name = strerrorname_np(-u->err);
	const char *why = u->result.why ? u->result.why : strerrordesc_np(-u->err);
	const char *path = u->result.path ? u->result.path : "";
	struct json_object *context = path_context(path, "archive.write");
	AUTO_BUF text = BUF_INIT;
	buf_printf(&text, "%s: %s%s%s", name ? name : "EIO", path, *path ? ": " : "", why);
	if (!u->replace) /* else none of them has stayed */
		buf_printf(&text, " (%llu entries done)", (unsigned long long)u->result.entries);
	json_add(context, "errno", json_object_new_string(name ? name : "EIO"));
	json_add(context, "entries", json_object_new_uint64(u->result.entries));
	json_add(context, "bytes", json_object_new_uint64(u->result.bytes));
	json_add(context, "stderr", text_json(text.data ? text.data : "", text.size));
	return reply_error(r, ERR_FILESYSTEM, context, "archive.write",
		"The archive was not unpacked: %s", text.data ? text.data : "");
}

enum MHD_Result route_archive_put(struct request *r)
{
	enum MHD_Result result;
	if (!r->feed) {
		/* A body of nothing, or a path that body_archive_put did not like. */
		r->feed = upload_begin(r, &result);
		r->feed_release = upload_release;
		if (!r->feed)
			return result;
	}
	upload_end(r->feed);
	return answer_upload(r, r->feed);
}
