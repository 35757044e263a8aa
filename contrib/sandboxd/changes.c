/*
 * inotify for many listeners: see changes.h.
 *
 * inotify watches single directories, so one that appears is watched first and then read: nothing made in it meanwhile is missed
 * (what falls between may be told twice). A rename is told as two events, nearly always next to each other and with the same
 * cookie: the first is kept back until the second, an event that concerns its name, or a moment has come.
 */
#include "changes.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "changes_map.h"
#include "cleanup.h"
#include "glob.h"

enum {
	EVENT_BUFFER = 64 << 10,
	QUEUE_MAX = 4 << 20, /* bytes of lines that one listener may leave */
	PAIR_WAIT_MS = 2,
	BATCH_MS = 10, /* being woken for each event would slow down who makes them, twentyfold */
	BATCH_READS = 64,
	THREAD_STACK = 256 << 10,
	WATCH_MASK = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_MODIFY | IN_ATTRIB |
				 IN_EXCL_UNLINK | IN_ONLYDIR
};

struct listener {
	struct listener *next;
	struct changes *all;
	struct listen_spec spec;
	int fd; /* an eventfd */
	/* under the lock of all */
	struct buf queue;
	size_t last; /* where the last line of the queue begins */
	uint64_t lost;
	bool lost_many, gone;
};

struct changes {
	const char *workspace;
	pthread_mutex_t lock; /* covers what follows */
	pthread_cond_t idle;  /* the thread has ended */
	struct listener *first;
	bool running; /* the thread is there */
	int fd, stop_fd;
	struct watch_map map;
	struct {
		uint32_t cookie;
		char *path; /* NULL: nothing is kept back */
		bool directory;
	} from;
	char events[EVENT_BUFFER] __attribute__((aligned(__alignof__(struct inotify_event))));
};

static void list_free(char **list)
{
	for (char **s = list; s && *s; s++)
		free(*s);
	free(list);
}

void listen_spec_release(struct listen_spec *spec)
{
	free(spec->dir);
	list_free(spec->include);
	list_free(spec->exclude);
	*spec = (struct listen_spec){0};
}

/* --- telling --- */

static bool covered(char *const *globs, const char *path)
{
	for (; *globs; globs++)
		if (glob_covers(*globs, path))
			return true;
	return false;
}

static bool sees(const struct listener *l, const char *path)
{
	const struct listen_spec *s = &l->spec;
	size_t n = strlen(s->dir);
	if (n && (strncmp(path, s->dir, n) != 0 || (path[n] && path[n] != '/')))
		return false;
	const char *rest = path + n + (n && path[n]);
	if (!s->recursive && strchr(rest, '/'))
		return false;
	return (!s->include || covered(s->include, rest)) &&
		   (!s->exclude || !covered(s->exclude, rest));
}

static void put_path(struct buf *out, const char *path, bool directory)
{
	buf_char(out, '\t');
	for (const char *p = path; *p; p++) {
		if (*p == '\n' || *p == '\t' || *p == '\\')
			buf_printf(out, "\\%03o", (unsigned)*p);
		else
			buf_char(out, *p);
	}
	if (directory)
		buf_str(out, *path ? "/" : "./");
}

static void wake(const struct listener *l)
{
	uint64_t one = 1;
	(void)!write(l->fd, &one, sizeof one); /* full means it is awake */
}

static void put_lost(struct listener *l)
{
	if (!l->lost && !l->lost_many)
		return;
	if (l->lost_many)
		buf_str(&l->queue, "lost ?\n");
	else
		buf_printf(&l->queue, "lost %llu\n", (unsigned long long)l->lost);
	l->lost = 0;
	l->lost_many = false;
}

static void listener_add(struct listener *l, const struct buf *line)
{
	bool empty = l->queue.size == 0;
	/* Once something was dropped, nothing follows it before its count. */
	if (l->lost || l->lost_many ? !empty : l->queue.size + line->size > QUEUE_MAX) {
		l->lost++;
		return;
	}
	put_lost(l);
	/* Many writes to one file in a row are one change. */
	if (*line->data == 'm' && l->queue.size - l->last == line->size && !empty &&
		memcmp(l->queue.data + l->last, line->data, line->size) == 0)
		return;
	l->last = l->queue.size;
	buf_add(&l->queue, line->data, line->size);
	if (buf_error(&l->queue)) {
		buf_release(&l->queue);
		l->last = 0;
		l->lost_many = true;
	}
	if (empty)
		wake(l);
}

/* to NULL: no second path. */
static void tell(
	struct changes *all, const char *type, const char *path, const char *to, bool directory)
{
	AUTO_BUF line = BUF_INIT;
	for (struct listener *l = all->first; l; l = l->next) {
		const char *word = type, *first = path, *second = to;
		if (to) { /* out of what it sees, or into it */
			bool from_seen = sees(l, path), to_seen = sees(l, to);
			if (!from_seen && !to_seen)
				continue;
			word = !to_seen ? "delete" : from_seen ? type : "create";
			first = from_seen ? path : to;
			second = from_seen && to_seen ? to : NULL;
		} else if (!sees(l, path)) {
			continue;
		}
		buf_clear(&line);
		buf_str(&line, word);
		put_path(&line, first, directory);
		if (second)
			put_path(&line, second, directory);
		buf_char(&line, '\n');
		if (buf_error(&line))
			l->lost++;
		else
			listener_add(l, &line);
	}
}

/* Nobody knows what; what follows is told as ever. */
static void tell_lost(struct changes *all)
{
	AUTO_BUF line = BUF_INIT;
	buf_str(&line, "lost ?\n");
	for (struct listener *l = all->first; l; l = l->next) {
		if (buf_error(&line))
			l->lost_many = true;
		else
			listener_add(l, &line);
	}
}

/* --- watching --- */

/* *known: it was watched before, under whatever name. */
static int watch_one(struct changes *all, const char *relative, bool *known)
{
	AUTO_BUF path = BUF_INIT;
	buf_printf(&path, "%s/%s", all->workspace, relative);
	if (buf_error(&path))
		return -ENOMEM;
	/* Below the top no link is followed: it would lead out of the tree, or in circles. */
	int wd = inotify_add_watch(all->fd, path.data,
		WATCH_MASK | (*relative ? IN_DONT_FOLLOW : IN_DELETE_SELF | IN_MOVE_SELF));
	if (wd < 0)
		return -errno;
	*known = watch_map_find(&all->map, wd) != NULL;
	return watch_map_set(&all->map, wd, relative);
}

/* Adds the directories in one to the queue; news: everything in it is told. */
static int read_directory(struct changes *all, const char *relative, bool news, struct buf *queue)
{
	AUTO_BUF path = BUF_INIT;
	buf_printf(&path, "%s/%s", all->workspace, relative);
	DIR *dir = buf_error(&path) ? NULL : opendir(path.data);
	if (!dir)
		return *relative ? 0 : -errno;
	for (struct dirent *d; (d = readdir(dir));) {
		if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
			continue;
		AUTO_BUF entry = BUF_INIT;
		buf_printf(&entry, "%s%s%s", relative, *relative ? "/" : "", d->d_name);
		if (buf_error(&entry))
			break;
		bool directory = d->d_type == DT_DIR;
		struct stat st;
		if (d->d_type == DT_UNKNOWN &&
			fstatat(dirfd(dir), d->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
			directory = S_ISDIR(st.st_mode);
		if (news)
			tell(all, "create", entry.data, NULL, directory);
		if (directory)
			buf_add(queue, entry.data, entry.size + 1);
	}
	closedir(dir);
	return buf_error(queue);
}

/* Watches a directory and all below it. news: what is in those that were not watched before is told. */
static int watch_tree(struct changes *all, const char *relative, bool news)
{
	AUTO_BUF queue = BUF_INIT;
	buf_add(&queue, relative, strlen(relative) + 1);
	for (size_t at = 0; !buf_error(&queue) && at < queue.size;) {
		AUTO_FREE char *path = strdup(queue.data + at);
		if (!path)
			return -ENOMEM;
		at += strlen(path) + 1;
		bool known = false;
		int err = watch_one(all, path, &known);
		if (!err)
			err = read_directory(all, path, news && !known, &queue);
		else if (*path && (err == -ENOENT || err == -ENOTDIR || err == -EACCES))
			err = 0; /* gone again, or another thing now: its parent tells; or nobody's business */
		if (err)
			return err;
	}
	return buf_error(&queue);
}

static void unwatch(void *arg, int wd)
{
	/* The IN_IGNORED that follows takes it out of the map; it may be gone already. */
	(void)inotify_rm_watch(((struct changes *)arg)->fd, wd);
}

/* A directory is news: so is what is in it. */
static void take_tree(struct changes *all, const char *path)
{
	if (watch_tree(all, path, true) < 0)
		tell_lost(all);
}

/* --- events --- */

/* What was moved away has not come back under another name. */
static void settle_from(struct changes *all)
{
	if (!all->from.path)
		return;
	AUTO_FREE char *path = steal(all->from.path);
	tell(all, "delete", path, NULL, all->from.directory);
	if (all->from.directory)
		watch_map_below(&all->map, path, unwatch, all);
}

static void take_move_to(struct changes *all, const struct inotify_event *e, const char *path)
{
	bool directory = e->mask & IN_ISDIR;
	if (all->from.path && all->from.cookie == e->cookie) {
		AUTO_FREE char *from = steal(all->from.path);
		tell(all, "move", from, path, directory);
		if (directory && watch_map_move(&all->map, from, path) < 0)
			tell_lost(all);
		/* It may have gone before we had looked into it, or into what is below it. */
		if (directory)
			take_tree(all, path);
		return;
	}
	settle_from(all); /* the second of a pair comes next, so that one has none */
	tell(all, "create", path, NULL, directory);
	if (directory)
		take_tree(all, path);
}

/*
 * A file without a name that is being written is told under one that the kernel gives it: `#` and the number of its inode. Another
 * file can have such a name: it is there.
 */
static bool is_nameless(struct changes *all, const struct inotify_event *e, const char *path)
{
	struct stat st;
	if (!(e->mask & (IN_MODIFY | IN_ATTRIB)) || e->name[0] != '#' || !e->name[1] ||
		e->name[1 + strspn(e->name + 1, "0123456789")])
		return false;
	AUTO_BUF full = BUF_INIT;
	buf_printf(&full, "%s/%s", all->workspace, path);
	return !buf_error(&full) && lstat(full.data, &st) < 0 && errno == ENOENT;
}

static void take_named(struct changes *all, const struct inotify_event *e, const char *path)
{
	bool directory = e->mask & IN_ISDIR;
	if (all->from.path && !(e->mask & IN_MOVED_TO) && strcmp(all->from.path, path) == 0)
		settle_from(all);
	if (e->mask & IN_MOVED_FROM) {
		settle_from(all);
		all->from.path = strdup(path);
		all->from.cookie = e->cookie;
		all->from.directory = directory;
		if (!all->from.path)
			tell_lost(all);
	} else if (e->mask & IN_MOVED_TO) {
		take_move_to(all, e, path);
	} else if (e->mask & IN_CREATE) {
		tell(all, "create", path, NULL, directory);
		if (directory)
			take_tree(all, path);
	} else if (e->mask & IN_DELETE) {
		tell(all, "delete", path, NULL, directory);
	} else if (e->mask & IN_MODIFY) {
		tell(all, "modify", path, NULL, directory);
	} else if (e->mask & IN_ATTRIB) {
		tell(all, "attrib", path, NULL, directory);
	}
}

/* The kernel's queue was full: what was missed is not known, and new directories may be among it. */
static void take_overflow(struct changes *all)
{
	free(steal(all->from.path));
	watch_map_free(&all->map);
	(void)watch_tree(all, "", false); /* what fails here is said by lost, too */
	tell_lost(all);
}

static void take(struct changes *all, const struct inotify_event *e)
{
	if (e->mask & IN_Q_OVERFLOW) {
		take_overflow(all);
		return;
	}
	if (e->mask & IN_IGNORED) {
		watch_map_remove(&all->map, e->wd);
		return;
	}
	const struct watched *w = watch_map_find(&all->map, e->wd);
	if (!w)
		return;
	if (!*w->path && (e->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT))) {
		for (struct listener *l = all->first; l; l = l->next) {
			l->gone = true;
			wake(l);
		}
		return;
	}
	if (!e->len) { /* of a directory itself: its parent tells it too, but for the top */
		if (!*w->path && (e->mask & IN_ATTRIB))
			tell(all, "attrib", "", NULL, true);
		return;
	}
	AUTO_BUF path = BUF_INIT;
	buf_printf(&path, "%s%s%s", w->path, *w->path ? "/" : "", e->name);
	if (buf_error(&path))
		tell_lost(all);
	else if (!is_nameless(all, e, path.data))
		take_named(all, e, path.data);
}

/* One read's worth of events, without waiting; the lock is held. How many bytes; 0: there was nothing. */
static size_t take_some(struct changes *all)
{
	ssize_t n = read(all->fd, all->events, sizeof all->events);
	for (const char *p = all->events; n > 0 && p < all->events + n;) {
		const struct inotify_event *e = (const struct inotify_event *)(const void *)p;
		take(all, e);
		p += sizeof *e + e->len;
	}
	return n > 0 ? (size_t)n : 0;
}

/* --- the thread --- */

static void stop_watching(struct changes *all)
{
	watch_map_free(&all->map);
	free(steal(all->from.path));
	close(all->fd);
	close(all->stop_fd);
	all->fd = all->stop_fd = -1;
}

static void *changes_thread(void *arg)
{
	struct changes *all = arg;
	pthread_mutex_lock(&all->lock);
	while (all->first) {
		struct pollfd fds[] = {{all->fd, POLLIN, 0}, {all->stop_fd, POLLIN, 0}};
		bool keeps = all->from.path != NULL;
		pthread_mutex_unlock(&all->lock);
		int n = poll(fds, 2, keeps ? PAIR_WAIT_MS : -1);
		pthread_mutex_lock(&all->lock);
		int reads = 0;
		while (reads < BATCH_READS && take_some(all))
			reads++;
		if (!reads && keeps && n == 0)
			settle_from(all);
		if (reads) {
			pthread_mutex_unlock(&all->lock);
			(void)poll(fds + 1, 1, BATCH_MS); /* whatever it says, we go on */
			pthread_mutex_lock(&all->lock);
		}
	}
	stop_watching(all);
	all->running = false;
	pthread_cond_broadcast(&all->idle);
	pthread_mutex_unlock(&all->lock);
	return NULL;
}

static int start_watching(struct changes *all)
{
	pthread_attr_t attr;
	pthread_t thread;
	all->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (all->fd < 0)
		return -errno;
	all->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int err = all->stop_fd < 0 ? -errno : watch_tree(all, "", false);
	if (!err) {
		pthread_attr_init(&attr);
		pthread_attr_setstacksize(&attr, THREAD_STACK);
		pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
		err = -pthread_create(&thread, &attr, changes_thread, all);
		pthread_attr_destroy(&attr);
	}
	if (err)
		stop_watching(all);
	all->running = !err;
	return err;
}

/* --- what others call --- */

int changes_new(const char *workspace, struct changes **out)
{
	struct changes *all = calloc(1, sizeof *all);
	if (!all)
		return -ENOMEM;
	all->workspace = workspace;
	all->fd = all->stop_fd = -1;
	pthread_mutex_init(&all->lock, NULL);
	pthread_cond_init(&all->idle, NULL);
	*out = all;
	return 0;
}

void changes_free(struct changes *all)
{
	if (!all)
		return;
	pthread_mutex_lock(&all->lock);
	while (all->running)
		pthread_cond_wait(&all->idle, &all->lock);
	pthread_mutex_unlock(&all->lock);
	pthread_cond_destroy(&all->idle);
	pthread_mutex_destroy(&all->lock);
	free(all);
}

static void listener_free(struct listener *l)
{
	if (l->fd >= 0)
		close(l->fd);
	buf_release(&l->queue);
	listen_spec_release(&l->spec);
	free(l);
}

int changes_listen(struct changes *all, struct listen_spec *spec, struct listener **out)
{
	struct listener *l = calloc(1, sizeof *l);
	if (!l) {
		listen_spec_release(spec);
		return -ENOMEM;
	}
	*l = (struct listener){.all = all, .spec = *spec};
	*spec = (struct listen_spec){0};
	l->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int err = l->fd < 0 ? -errno : 0;
	pthread_mutex_lock(&all->lock);
	/* The thread of those who have just left ends by itself, and its watches with it. */
	while (!err && all->running && !all->first)
		pthread_cond_wait(&all->idle, &all->lock);
	if (!err && !all->running)
		err = start_watching(all);
	if (!err) {
		/* What came before is not for the new one; who writes without end does not hold us up. */
		int before = 0;
		if (ioctl(all->fd, FIONREAD, &before) < 0)
			before = 0;
		for (size_t n = 1; n && before > 0; before -= (int)n)
			n = take_some(all);
		l->next = all->first;
		all->first = l;
	}
	pthread_mutex_unlock(&all->lock);
	if (err) {
		listener_free(l);
		return err;
	}
	*out = l;
	return 0;
}

void changes_leave(struct listener *l)
{
	struct changes *all = l->all;
	uint64_t one = 1;
	pthread_mutex_lock(&all->lock);
	struct listener **at = &all->first;
	while (*at != l)
		at = &(*at)->next;
	*at = l->next;
	if (!all->first)
		(void)!write(all->stop_fd, &one, sizeof one); /* a fresh eventfd has room for a 1 */
	pthread_mutex_unlock(&all->lock);
	listener_free(l);
}

int listener_fd(const struct listener *l)
{
	return l->fd;
}

int listener_take(struct listener *l, struct buf *out)
{
	uint64_t woken;
	AUTO_UNLOCK(&l->all->lock);
	(void)!read(l->fd, &woken, sizeof woken); /* nothing: it was not woken */
	buf_add(out, l->queue.data ? l->queue.data : "", l->queue.size);
	buf_clear(&l->queue);
	l->last = 0;
	/* What was lost is told where it is missing, even if nothing follows. */
	if (l->lost || l->lost_many) {
		put_lost(l);
		buf_add(out, l->queue.data ? l->queue.data : "", l->queue.size);
		buf_clear(&l->queue);
	}
	return buf_error(out) ? -ENOMEM : l->gone ? -ENOENT : 0;
}
