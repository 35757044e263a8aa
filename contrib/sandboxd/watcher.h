/*
 * Watching a tree with inotify. Owns one inotify instance, the map of its watches, and the rule of what is
 * told. One thread at a time.
 */
#ifndef SANDBOXD_WATCHER_H
#define SANDBOXD_WATCHER_H

#include <stdbool.h>
#include <stddef.h>

enum watch_type {
	WATCH_CREATE = 1,
	WATCH_MODIFY = 2,
	WATCH_DELETE = 4,
	WATCH_MOVE_FROM = 8,
	WATCH_MOVE_TO = 16,
	WATCH_ATTRIB = 32
};

struct watch_spec {
	char *root; /* absolute */
	bool recursive;
	unsigned types; /* of enum watch_type */
	char **include; /* NULL-terminated, or NULL: all */
	char **exclude; /* NULL-terminated, or NULL: none */
};

struct watcher;

/* Takes the content of spec, also on failure. 0 and *out, or a negative errno. */
int watcher_new(struct watch_spec *spec, struct watcher **out);
void watcher_free(struct watcher *w);
void watch_spec_release(struct watch_spec *spec);

int watcher_fd(const struct watcher *w);
/*
 * Has another thing, or nothing, taken the root's place? inotify is silent about a removed directory for as long as somebody is in it.
 */
bool watcher_root_gone(const struct watcher *w);
/* relative: path below the root, "" for itself; valid during the call only. */
typedef void watch_sink(void *arg, enum watch_type type, const char *relative, bool directory);
/*
 * Takes what has come, without waiting. How many raw events, or a negative errno: -EOVERFLOW some were lost,
 * -ENOENT the root is gone (both after what came before was told).
 */
long watcher_read(struct watcher *w, watch_sink *sink, void *arg);

#endif
