/*
 * inotify; see watcher.h. inotify watches single directories by number, so a map from numbers to paths
 * is kept; a directory that appears is watched first and then read, so that nothing made in it meanwhile is missed
 * (what falls between may be told twice).
 */
#include "watcher.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"
#include "glob.h"

enum { EVENT_BUFFER = 64 << 10 };

struct place {
	int wd;
	char *path; /* relative to the root */
};

struct watcher {
	struct watch_spec spec;
	int fd;
	int root_wd;
	dev_t root_dev;
	ino_t root_ino;
	struct place *places; /* by wd, ascending */
	size_t count, capacity;
	char events[EVENT_BUFFER] __attribute__((aligned(__alignof__(struct inotify_event))));
};

struct telling {
	watch_sink *sink;
	void *arg;
	long count;
};

static void list_free(char **list)
{
	for (char **s = list; s && *s; s++)
		free(*s);
	free(list);
}

void watch_spec_release(struct watch_spec *spec)
{
	free(spec->root);
	list_free(spec->include);
	list_free(spec->exclude);
	*spec = (struct watch_spec){NULL, false, 0, NULL, NULL};
}

void watcher_free(struct watcher *w)
{
	if (!w)
		return;
	for (size_t i = 0; i < w->count; i++)
		free(w->places[i].path);
	free(w->places);
	if (w->fd >= 0)
		close(w->fd);
	watch_spec_release(&w->spec);
	free(w);
}

int watcher_fd(const struct watcher *w)
{
	return w->fd;
}

bool watcher_root_gone(const struct watcher *w)
{
	struct stat st;
	return stat(w->spec.root, &st) < 0 || st.st_dev != w->root_dev || st.st_ino != w->root_ino;
}

static bool covered(char *const *globs, const char *path)
{
	for (; *globs; globs++)
		if (glob_covers(*globs, path))
			return true;
	return false;
}

static bool excluded(const struct watcher *w, const char *path)
{
	return w->spec.exclude && covered(w->spec.exclude, path);
}

static void tell(
	struct watcher *w, struct telling *t, enum watch_type type, const char *path, bool directory)
{
	if (!t || excluded(w, path) || (w->spec.include && !covered(w->spec.include, path)))
		return;
	t->count++;
	if (w->spec.types & type)
		t->sink(t->arg, type, path, directory);
}

/* --- the map --- */

static size_t place_index(const struct watcher *w, int wd)
{
	size_t low = 0, high = w->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (w->places[middle].wd < wd)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static struct place *place_find(const struct watcher *w, int wd)
{
	size_t i = place_index(w, wd);
	return i < w->count && w->places[i].wd == wd ? &w->places[i] : NULL;
}

static int place_add(struct watcher *w, int wd, const char *path)
{
	AUTO_FREE char *copy = strdup(path);
	if (!copy)
		return -ENOMEM;
	struct place *there = place_find(w, wd);
	if (there) {
		/* The same directory under another name: a bind mount, or a rename that we are behind. */
		free(there->path);
		there->path = steal(copy);
		return 0;
	}
	if (w->count == w->capacity) {
		size_t capacity = w->capacity ? w->capacity * 2 : 16;
		struct place *places = realloc(w->places, capacity * sizeof *places);
		if (!places)
			return -ENOMEM;
		w->places = places;
		w->capacity = capacity;
	}
	size_t i = place_index(w, wd);
	memmove(w->places + i + 1, w->places + i, (w->count - i) * sizeof *w->places);
	w->places[i] = (struct place){.wd = wd, .path = steal(copy)};
	w->count++;
	return 0;
}

static void place_remove(struct watcher *w, int wd)
{
	size_t i = place_index(w, wd);
	if (i == w->count || w->places[i].wd != wd)
		return;
	free(w->places[i].path);
	memmove(w->places + i, w->places + i + 1, (w->count - i - 1) * sizeof *w->places);
	w->count--;
}

/* A directory has left: its watches would go on telling old names. */
static void forget_below(struct watcher *w, const char *path)
{
	size_t n = strlen(path);
	for (size_t i = 0; i < w->count; i++) {
		const char *p = w->places[i].path;
		if (strncmp(p, path, n) == 0 && (!p[n] || p[n] == '/'))
			/* The IN_IGNORED that follows takes it out of the map; it may be gone already. */
			(void)inotify_rm_watch(w->fd, w->places[i].wd);
	}
}

/* --- adding --- */

static int watch_one(struct watcher *w, const char *relative, int *wd)
{
	AUTO_BUF path = BUF_INIT;
	buf_printf(&path, "%s%s%s", w->spec.root, *relative ? "/" : "", relative);
	if (buf_error(&path) < 0)
		return -ENOMEM;
	uint32_t mask = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_MODIFY;
	if (w->spec.types & WATCH_ATTRIB)
		mask |= IN_ATTRIB;
	/* Below the root no link is followed: it would lead out of the tree, or in circles. */
	mask |= *relative ? IN_DONT_FOLLOW | IN_ONLYDIR : IN_DELETE_SELF | IN_MOVE_SELF;
	*wd = inotify_add_watch(w->fd, path.data, mask);
	return *wd < 0 ? -errno : place_add(w, *wd, relative);
}

/* Adds the entries of a directory to the queue, and tells of them. */
static int read_directory(
	struct watcher *w, const char *relative, struct telling *t, struct buf *queue)
{
	AUTO_BUF path = BUF_INIT;
	buf_printf(&path, "%s%s%s", w->spec.root, *relative ? "/" : "", relative);
	DIR *dir = buf_error(&path) ? NULL : opendir(path.data);
	if (!dir)
		return *relative ? 0 : -errno;
	for (struct dirent *d; (d = readdir(dir));) {
		if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
			continue;
		AUTO_BUF entry = BUF_INIT;
		buf_printf(&entry, "%s%s%s", relative, *relative ? "/" : "", d->d_name);
		if (buf_error(&entry) < 0)
			break;
		bool directory = d->d_type == DT_DIR;
		struct stat st;
		if (d->d_type == DT_UNKNOWN &&
			fstatat(dirfd(dir), d->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
			directory = S_ISDIR(st.st_mode);
		tell(w, t, WATCH_CREATE, entry.data, directory);
		if (directory && !excluded(w, entry.data))
			buf_add(queue, entry.data, entry.size + 1);
	}
	closedir(dir);
	return buf_error(queue);
}

/* Watches a directory and, if the watch is recursive, all below it. t: tell of what is found there; NULL: it is no news. */
static int watch_tree(struct watcher *w, const char *relative, struct telling *t)
{
	AUTO_BUF queue = BUF_INIT;
	buf_add(&queue, relative, strlen(relative) + 1);
	for (size_t at = 0; !buf_error(&queue) && at < queue.size;) {
		AUTO_FREE char *path = strdup(queue.data + at);
		if (!path)
			return -ENOMEM;
		at += strlen(path) + 1;
		int wd;
		int err = watch_one(w, path, &wd);
		/* What went away, or became another thing, since it was listed, is told by its parent. */
		if (err == -ENOENT || err == -ENOTDIR || err == -EACCES)
			err = *path ? 0 : err;
		else if (!err && w->spec.recursive)
			err = read_directory(w, path, t, &queue);
		if (err == -ENOTDIR)
			err = 0; /* the root is a file */
		if (err < 0)
			return err;
		if (!*path)
			w->root_wd = wd;
	}
	return buf_error(&queue);
}

int watcher_new(struct watch_spec *spec, struct watcher **out)
{
	struct watcher *w = calloc(1, sizeof *w);
	if (!w) {
		watch_spec_release(spec);
		return -ENOMEM;
	}
	w->spec = *spec;
	*spec = (struct watch_spec){NULL, false, 0, NULL, NULL};
	struct stat st = {0};
	w->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	int err = w->fd < 0 || stat(w->spec.root, &st) < 0 ? -errno : watch_tree(w, "", NULL);
	w->root_dev = st.st_dev;
	w->root_ino = st.st_ino;
	if (err < 0) {
		watcher_free(w);
		return err;
	}
	*out = w;
	return 0;
}

/* --- reading --- */

static int take_directory(
	struct watcher *w, const struct inotify_event *e, const char *path, struct telling *t)
{
	if (!w->spec.recursive)
		return 0;
	if (e->mask & IN_MOVED_FROM)
		forget_below(w, path);
	if (!(e->mask & (IN_CREATE | IN_MOVED_TO)) || excluded(w, path))
		return 0;
	return watch_tree(w, path, t);
}

static int take(struct watcher *w, const struct inotify_event *e, struct telling *t)
{
	static const struct {
		uint32_t mask;
		enum watch_type type;
	} types[] = {{IN_CREATE, WATCH_CREATE}, {IN_MODIFY, WATCH_MODIFY}, {IN_DELETE, WATCH_DELETE},
		{IN_MOVED_FROM, WATCH_MOVE_FROM}, {IN_MOVED_TO, WATCH_MOVE_TO}, {IN_ATTRIB, WATCH_ATTRIB}};
	if (e->mask & IN_Q_OVERFLOW)
		return -EOVERFLOW;
	if (e->wd == w->root_wd && (e->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT)))
		return -ENOENT;
	if (e->mask & IN_IGNORED) {
		place_remove(w, e->wd);
		return 0;
	}
	const struct place *place = place_find(w, e->wd);
	if (!place)
		return 0;
	AUTO_BUF path = BUF_INIT;
	buf_str(&path, place->path);
	if (e->len)
		buf_printf(&path, "%s%s", path.size ? "/" : "", e->name);
	if (buf_error(&path) < 0)
		return -ENOMEM;
	bool directory = e->mask & IN_ISDIR;
	for (size_t i = 0; i < sizeof types / sizeof *types; i++)
		if (e->mask & types[i].mask)
			tell(w, t, types[i].type, path.data, directory);
	return directory && e->len ? take_directory(w, e, path.data, t) : 0;
}

long watcher_read(struct watcher *w, watch_sink *sink, void *arg)
{
	struct telling t = {.sink = sink, .arg = arg};
	for (;;) {
		ssize_t n = read(w->fd, w->events, sizeof w->events);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return t.count;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		for (const char *p = w->events; p < w->events + n;) {
			const struct inotify_event *e = (const struct inotify_event *)(const void *)p;
			int err = take(w, e, &t);
			if (err < 0)
				return err;
			p += sizeof *e + e->len;
		}
	}
}
