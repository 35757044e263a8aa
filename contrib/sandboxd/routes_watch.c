/*
 * watch and watch/check. Owns the state of each subscriber's stream, and the table of watches that wait for
 * the next check. The latter need no thread: the kernel keeps what has come until somebody asks, and says if it was
 * too much.
 */
#include <errno.h>
#include <json-c/json.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "checks.h"
#include "cleanup.h"
#include "common.h"
#include "glob.h"
#include "json_make.h"
#include "net.h"
#include "routes.h"
#include "text.h"
#include "watcher.h"

static const char operation[] = "file.watch";

enum { WINDOW_MS = 50, BATCH_MAX = 4096, MERGE_LOOK_BACK = 128 };

static const struct {
	const char *name;
	enum watch_type type;
} types[] = {{"create", WATCH_CREATE}, {"modify", WATCH_MODIFY}, {"delete", WATCH_DELETE},
	{"move_from", WATCH_MOVE_FROM}, {"move_to", WATCH_MOVE_TO}, {"attrib", WATCH_ATTRIB}};

/* --- the fields --- */

static enum MHD_Result invalid(struct request *r, const char *why)
{
	return reply_error(r, ERR_VALIDATION, NULL, operation, "%s", why);
}

/* A list of globs in a member. 0; or a sentence about what is wrong. */
static const char *get_globs(struct request *r, const char *member, char ***out)
{
	struct json_object *list;
	if (!json_object_object_get_ex(r->json, member, &list) || !list)
		return NULL;
	if (!json_object_is_type(list, json_type_array))
		return "include and exclude must be arrays of strings";
	size_t n = json_object_array_length(list);
	if (n > 256)
		return "at most 256 globs can be given";
	*out = calloc(n + 1, sizeof **out);
	for (size_t i = 0; *out && i < n; i++) {
		struct json_object *one = json_object_array_get_idx(list, i);
		if (!json_object_is_type(one, json_type_string))
			return "include and exclude must be arrays of strings";
		const char *glob = json_object_get_string(one);
		if (!*glob || strlen(glob) > 1024 || !glob_is_plain(glob))
			return "a glob has 1 to 1024 bytes and none of [ ] { }";
		(*out)[i] = strdup(glob);
		if (!(*out)[i])
			return "out of memory";
	}
	if (*out && !n) {
		free(*out);
		*out = NULL;
	}
	return NULL;
}

static const char *get_types(struct request *r, unsigned *out)
{
	struct json_object *list;
	*out = WATCH_CREATE | WATCH_MODIFY | WATCH_DELETE | WATCH_MOVE_FROM | WATCH_MOVE_TO;
	if (!json_object_object_get_ex(r->json, "events", &list) || !list)
		return NULL;
	if (!json_object_is_type(list, json_type_array))
		return "events must be an array";
	if (json_object_array_length(list))
		*out = 0;
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		struct json_object *one = json_object_array_get_idx(list, i);
		unsigned type = 0;
		for (size_t j = 0; j < sizeof types / sizeof *types; j++)
			if (json_object_is_type(one, json_type_string) &&
				strcmp(json_object_get_string(one), types[j].name) == 0)
				type = types[j].type;
		if (!type)
			return "events are create modify delete move_from move_to attrib";
		*out |= type;
	}
	return NULL;
}

static char **default_excludes(void)
{
	static const char *const names[] = {".git", "node_modules", ".DS_Store"};
	char **list = calloc(4, sizeof *list);
	for (size_t i = 0; list && i < 3; i++)
		list[i] = strdup(names[i]);
	return list;
}

/* Is the existing path, with all links followed, in the workspace? */
static bool inside(const struct server *server, const char *path)
{
	AUTO_FREE char *real = realpath(path, NULL);
	AUTO_FREE char *top = realpath(server->workspace, NULL);
	if (!real || !top)
		return false;
	size_t n = strcmp(top, "/") ? strlen(top) : 0;
	return strncmp(real, top, n) == 0 && (!real[n] || real[n] == '/');
}

/* False: *out is the answer. given is borrowed from the body. */
static bool get_spec(struct request *r, struct watch_spec *spec, enum MHD_Result *out)
{
	const char *given;
	*spec = (struct watch_spec){.recursive = json_flag(r->json, "recursive", true)};
	AUTO_FREE char *path = request_path(r, "path", ERR_VALIDATION, &given, out);
	if (!path)
		return false;
	for (size_t n = strlen(path); n > 1 && path[n - 1] == '/'; n--)
		path[n - 1] = '\0';
	const char *wrong = get_globs(r, "include", &spec->include);
	if (!wrong)
		wrong = get_globs(r, "exclude", &spec->exclude);
	if (!wrong && spec->include && spec->exclude)
		wrong = "include and exclude cannot be used together";
	if (!wrong)
		wrong = get_types(r, &spec->types);
	if (wrong) {
		*out = invalid(r, wrong);
		watch_spec_release(spec);
		return false;
	}
	struct stat st;
	bool there = stat(path, &st) == 0;
	if (there && inside(r->server, path)) {
		if (!spec->exclude && !spec->include)
			spec->exclude = default_excludes();
		spec->root = steal(path);
		return true;
	}
	/* Whether something exists outside is nobody's business here. */
	bool outside = there || (path[0] == '/' && strncmp(path, r->server->workspace,
												   strlen(r->server->workspace)) != 0);
	*out = outside ? reply_error(r, ERR_PERMISSION_DENIED, path_context(path, operation), operation,
						 "Path is not in the workspace: %s", path)
				   : reply_no_file(r, path, operation);
	watch_spec_release(spec);
	return false;
}

/* --- watch --- */

struct seen {
	enum watch_type type;
	bool directory;
	char *path;
};

struct watching {
	struct stream stream; /* first: the glue knows it by this */
	struct watcher *watcher;
	char *id, *root;
	int err; /* why nothing can be watched */
	bool begun;
	struct seen *batch;
	size_t count;
	bool no_memory;
};

static void batch_add(void *arg, enum watch_type type, const char *relative, bool directory)
{
	struct watching *w = arg;
	size_t from = w->count > MERGE_LOOK_BACK ? w->count - MERGE_LOOK_BACK : 0;
	for (size_t i = from; i < w->count; i++)
		if (w->batch[i].type == type && strcmp(w->batch[i].path, relative) == 0)
			return;
	if (w->count % 64 == 0) {
		struct seen *batch = realloc(w->batch, (w->count + 64) * sizeof *batch);
		if (!batch) {
			w->no_memory = true;
			return;
		}
		w->batch = batch;
	}
	char *path = strdup(relative);
	if (!path) {
		w->no_memory = true;
		return;
	}
	w->batch[w->count++] = (struct seen){.type = type, .directory = directory, .path = path};
}

static void batch_clear(struct watching *w)
{
	for (size_t i = 0; i < w->count; i++)
		free(w->batch[i].path);
	w->count = 0;
}

static const char *type_word(enum watch_type type)
{
	for (size_t i = 0; i < sizeof types / sizeof *types; i++)
		if (types[i].type == type)
			return types[i].name;
	return "modify";
}

static int batch_send(struct watching *w, struct buf *out)
{
	int err = w->no_memory ? -ENOMEM : 0;
	for (size_t i = 0; !err && i < w->count; i++) {
		struct seen *s = &w->batch[i];
		AUTO_BUF path = BUF_INIT;
		buf_printf(&path, "%s%s%s", w->root, *s->path ? "/" : "", s->path);
		if (buf_error(&path) < 0)
			return -ENOMEM;
		struct json_object *o = json_object_new_object();
		json_add(o, "type", json_object_new_string("event"));
		json_add(o, "eventType", json_object_new_string(type_word(s->type)));
		json_add(o, "path", text_json(path.data, path.size));
		json_add(o, "isDirectory", json_object_new_boolean(s->directory));
		json_add(o, "timestamp", text_time(NULL));
		err = event_add(out, o);
	}
	batch_clear(w);
	return err;
}

static int send_word(struct buf *out, const char *type, const char *member, const char *text)
{
	struct json_object *o = json_object_new_object();
	json_add(o, "type", json_object_new_string(type));
	json_add(o, member, text_json_str(text));
	return event_add(out, o);
}

static int send_end(struct watching *w, int err, struct buf *out)
{
	AUTO_BUF why = BUF_INIT;
	if (batch_send(w, out) < 0)
		return -ENOMEM;
	if (err == -ENOENT && w->begun)
		return send_word(out, "stopped", "reason", "the watched path is gone");
	if (err == -EOVERFLOW)
		buf_str(&why, "too many events at once: some were lost");
	else if (err == -ENOSPC)
		buf_str(&why, "ENOSPC: the limit of inotify watches is reached");
	else
		text_errno(&why, err);
	return send_word(out, "error", "error", why.data ? why.data : "EIO");
}

static int watching_begin(struct watching *w, struct buf *out)
{
	struct json_object *o = json_object_new_object();
	json_add(o, "type", json_object_new_string("watching"));
	json_add(o, "path", text_json_str(w->root));
	json_add(o, "watchId", text_json_str(w->id));
	w->begun = true;
	return event_add(out, o) < 0 ? -ENOMEM : 1;
}

static int watching_next(struct stream *stream, struct buf *out)
{
	struct watching *w = (struct watching *)stream;
	if (w->err < 0)
		return send_end(w, w->err, out) < 0 ? -ENOMEM : 0;
	if (!w->begun)
		return watching_begin(w, out);
	int fd = watcher_fd(w->watcher);
	int64_t now = text_monotonic_ms();
	int err = net_wait(stream->server, stream->client, fd, POLLIN, now + HTTP_TICK_MS);
	if (err == -ETIMEDOUT && watcher_root_gone(w->watcher))
		return send_end(w, -ENOENT, out) < 0 ? -ENOMEM : 0;
	if (err == -ETIMEDOUT)
		return 1;
	if (err < 0)
		return err;
	/* What comes in a rush goes out together, and the same thing twice goes once. */
	int64_t until = text_monotonic_ms() + WINDOW_MS;
	do {
		long n = watcher_read(w->watcher, batch_add, w);
		if (n < 0)
			return send_end(w, (int)n, out) < 0 ? -ENOMEM : 0;
		err = net_wait(stream->server, stream->client, fd, POLLIN, until);
	} while (!err && w->count < BATCH_MAX && text_monotonic_ms() < until);
	return batch_send(w, out) < 0 ? -ENOMEM : 1;
}

static void watching_release(struct stream *stream)
{
	struct watching *w = (struct watching *)stream;
	batch_clear(w);
	free(w->batch);
	watcher_free(w->watcher);
	free(w->id);
	free(w->root);
	free(w);
}

enum MHD_Result route_watch(struct request *r)
{
	enum MHD_Result result;
	struct watch_spec spec;
	if (!request_json(r, true, &result) || !get_spec(r, &spec, &result))
		return result;
	struct watching *w = calloc(1, sizeof *w);
	if (w) {
		w->stream = (struct stream){.next = watching_next, .release = watching_release};
		w->id = checks_id(r->server->checks);
		w->root = strdup(spec.root);
	}
	if (!w || !w->id || !w->root) {
		watch_spec_release(&spec);
		if (w)
			watching_release(&w->stream);
		return reply_error(r, ERR_INTERNAL, NULL, operation, "out of memory");
	}
	w->err = watcher_new(&spec, &w->watcher);
	return reply_stream(r, "text/event-stream", &w->stream);
}

/* --- watch/check --- */

enum MHD_Result route_watch_check(struct request *r)
{
	enum MHD_Result result;
	struct watch_spec spec;
	if (!request_json(r, true, &result))
		return result;
	struct json_object *v = NULL;
	const char *since = NULL;
	if (json_object_object_get_ex(r->json, "since", &v) && v) {
		since = json_text(r->json, "since", NULL);
		if (!since || !checks_is_version(since))
			return invalid(r, "since is not a version");
	}
	if (!get_spec(r, &spec, &result))
		return result;
	struct check check;
	int err = checks_look(r->server->checks, &spec, since, &check);
	if (err < 0) {
		AUTO_BUF why = BUF_INIT;
		text_errno(&why, err);
		return reply_error(r, ERR_INTERNAL, NULL, operation, "The path cannot be watched: %s",
			why.data ? why.data : "");
	}
	struct json_object *o = answer_new();
	json_add(o, "status", json_object_new_string(check.status));
	if (check.reason)
		json_add(o, "reason", json_object_new_string(check.reason));
	json_add(o, "version", text_json_str(check.version));
	free(check.version);
	return reply_json(r, 200, o);
}
