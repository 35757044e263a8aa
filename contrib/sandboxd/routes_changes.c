/*
 * The route of changes.h, sandboxfs's own beside watch. Owns the state of each listener's stream.
 *
 *   POST /api/sandboxfs/changes  {"dir"?:"","recursive"?:true,"include"?:[GLOB],"exclude"?:[GLOB]}
 *        dir is relative to the workspace; include and exclude may both be given, nothing is excluded by default.
 *        -> 200 text/plain: `ready` when nothing is missed any more, then lines as they come (changes.h); an empty line at least every
 *        5 s. Missing dir: 404 FILE_NOT_FOUND; no inotify watches left: 500 FILESYSTEM_ERROR, ENOSPC.
 */
#include <errno.h>
#include <json-c/json.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "changes.h"
#include "cleanup.h"
#include "common.h"
#include "glob.h"
#include "net.h"
#include "routes.h"
#include "text.h"

static const char operation[] = "file.watch";

enum { BEAT_MS = 5000, GLOBS_MAX = 256, GLOB_MAX = 1024 };

struct listening {
	struct stream stream; /* first: the glue knows it by this */
	struct listener *listener;
	int64_t told_ms;
	bool begun;
};

static int listening_next(struct stream *stream, struct buf *out)
{
	struct listening *l = (struct listening *)stream;
	int64_t now = text_monotonic_ms();
	if (!l->begun) {
		l->begun = true;
		l->told_ms = now;
		buf_str(out, "ready\n");
		return buf_error(out) ? -ENOMEM : 1;
	}
	int err = net_wait(
		stream->server, stream->client, listener_fd(l->listener), POLLIN, now + HTTP_TICK_MS);
	if (err && err != -ETIMEDOUT)
		return err;
	err = listener_take(l->listener, out);
	now = text_monotonic_ms();
	if (!err && !out->size && now - l->told_ms >= BEAT_MS)
		buf_char(out, '\n');
	if (out->size)
		l->told_ms = now;
	return err == -ENOENT ? 0 : err ? err : 1;
}

static void listening_release(struct stream *stream)
{
	struct listening *l = (struct listening *)stream;
	changes_leave(l->listener);
	free(l);
}

/* A list of globs in a member. 0; or a sentence about what is wrong. */
static const char *get_globs(struct request *r, const char *member, char ***out)
{
	struct json_object *list;
	if (!json_object_object_get_ex(r->json, member, &list) || !list)
		return NULL;
	size_t n =
		json_object_is_type(list, json_type_array) ? json_object_array_length(list) : SIZE_MAX;
	if (n > GLOBS_MAX)
		return "include and exclude are arrays of at most 256 globs";
	if (!n)
		return NULL;
	*out = calloc(n + 1, sizeof **out);
	for (size_t i = 0; *out && i < n; i++) {
		struct json_object *one = json_object_array_get_idx(list, i);
		const char *glob =
			json_object_is_type(one, json_type_string) ? json_object_get_string(one) : "";
		if (!*glob || strlen(glob) > GLOB_MAX || !glob_is_plain(glob))
			return "a glob has 1 to 1024 bytes and none of [ ] { }";
		(*out)[i] = strdup(glob);
		if (!(*out)[i])
			return "out of memory";
	}
	return *out ? NULL : "out of memory";
}

/* New: the path below the workspace, without empty and `.` parts. NULL: it leads out, or out of memory. */
static char *plain_dir(const char *path)
{
	AUTO_BUF out = BUF_INIT;
	buf_add(&out, "", 0);
	while (*path) {
		size_t n = strcspn(path, "/");
		if (n == 2 && strncmp(path, "..", 2) == 0)
			return NULL;
		if (n && !(n == 1 && *path == '.')) {
			if (out.size)
				buf_char(&out, '/');
			buf_add(&out, path, n);
		}
		path += n;
		path += strspn(path, "/");
	}
	return out.size ? buf_steal(&out) : strdup("");
}

/* False: *out is the answer. */
static bool get_spec(struct request *r, struct listen_spec *spec, enum MHD_Result *out)
{
	const char *dir = json_text(r->json, "dir", NULL);
	AUTO_BUF path = BUF_INIT;
	struct stat st;

	*spec = (struct listen_spec){.recursive = json_flag(r->json, "recursive", true)};
	const char *wrong = get_globs(r, "include", &spec->include);
	if (!wrong)
		wrong = get_globs(r, "exclude", &spec->exclude);
	spec->dir = plain_dir(dir ? dir : "");
	if (!wrong && !spec->dir)
		wrong = "dir leads out of the workspace";
	if (wrong) {
		*out = reply_error(r, ERR_VALIDATION, NULL, operation, "%s", wrong);
	} else {
		buf_printf(&path, "%s/%s", r->server->workspace, spec->dir);
		if (buf_error(&path))
			*out = reply_error(r, ERR_INTERNAL, NULL, operation, "out of memory");
		else if (lstat(path.data, &st) < 0)
			*out = reply_no_file(r, path.data, operation);
		else if (!S_ISDIR(st.st_mode))
			*out = reply_filesystem(r, path.data, operation, -1, "ENOTDIR: not a directory");
		else
			return true;
	}
	listen_spec_release(spec);
	return false;
}

enum MHD_Result route_changes(struct request *r)
{
	enum MHD_Result result;
	struct listen_spec spec;
	if (!request_json(r, true, &result) || !get_spec(r, &spec, &result))
		return result;
	struct listening *l = calloc(1, sizeof *l);
	if (!l) {
		listen_spec_release(&spec);
		return reply_error(r, ERR_INTERNAL, NULL, operation, "out of memory");
	}
	int err = changes_listen(r->server->changes, &spec, &l->listener);
	if (err) {
		AUTO_BUF why = BUF_INIT;
		free(l);
		text_errno(&why, err);
		if (err == -ENOSPC || err == -EMFILE)
			buf_str(&why, " (a limit of inotify is reached: see /proc/sys/fs/inotify)");
		return reply_filesystem(
			r, r->server->workspace, operation, -1, "%s", why.data ? why.data : "EIO");
	}
	l->stream = (struct stream){.next = listening_next, .release = listening_release};
	return reply_stream(r, "text/plain", &l->stream);
}
