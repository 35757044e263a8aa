/*
 * backups/: copies of a directory of the sandbox, kept here (backups_store.c), whatever becomes of the sandbox.
 *
 * A backup is what the server packs (archive.h), compressed there. Restoring unpacks it beside what is there and then takes its place: it
 * succeeds, or nothing has changed. Both go through this program in bounded memory and wait on the thread of their request, which ^C ends.
 *
 * The object of the set is an id in memory of its own.
 */
#include "backups.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "archive.h"
#include "cleanup.h"
#include "json_make.h"
#include "kinds.h"

enum { PIECE = 256 << 10, NAME_BYTES = 256, SPACE_STEP = 4 << 20 };

/* --- new --- */

struct backup_request {
	char *dir, *name;
	int64_t ttl_ms; /* 0: for ever */
	struct buf query;
};

static void request_release(struct backup_request *q)
{
	free(q->dir);
	free(q->name);
	buf_release(&q->query);
}
#define AUTO_REQUEST __attribute__((cleanup(request_release))) struct backup_request

/* Takes a directory of the sandbox; a relative one is below the workspace. */
static int take_dir(struct call *c, const char *given, char **out)
{
	static const char *const tops[] = {"/workspace", "/home", "/tmp", "/var/tmp", "/app"};
	AUTO_BUF path = BUF_INIT;
	if (*given != '/')
		buf_str(&path, "/workspace");
	for (const char *p = given; *p; p += strspn(p, "/")) {
		size_t n = strcspn(p, "/");
		if (n == 2 && strncmp(p, "..", 2) == 0)
			return call_fault(
				c, EINVAL, "INVALID_BACKUP_CONFIG", "%s: .. has no place here", given);
		if (n && !(n == 1 && *p == '.')) {
			buf_char(&path, '/');
			buf_add(&path, p, n);
		}
		p += n;
	}
	if (buf_error(&path))
		return -ENOMEM;
	for (size_t i = 0; path.size && i < sizeof tops / sizeof *tops; i++) {
		size_t n = strlen(tops[i]);
		if (strncmp(path.data, tops[i], n) == 0 && (!path.data[n] || path.data[n] == '/') &&
			!strchr(path.data, '\n')) {
			free(*out);
			*out = buf_steal(&path);
			return *out ? 0 : -ENOMEM;
		}
	}
	return call_fault(c, EINVAL, "INVALID_BACKUP_CONFIG",
		"%s: backups are of directories below /workspace, /home, /tmp, /var/tmp and /app", given);
}

static int take_name(struct call *c, const char *name, struct backup_request *q)
{
	if (!*name || strlen(name) > NAME_BYTES || strchr(name, '\n'))
		return call_fault(
			c, EINVAL, "INVALID_BACKUP_CONFIG", "a name has 1 to %d bytes on one line", NAME_BYTES);
	free(q->name);
	q->name = strdup(name);
	return q->name ? 0 : -ENOMEM;
}

static int take_word(struct call *c, const char *word, bool first, struct backup_request *q)
{
	if (strncmp(word, "name=", 5) == 0)
		return take_name(c, word + 5, q);
	if (strncmp(word, "ttl=", 4) == 0)
		return ctl_parse_duration(word + 4, &q->ttl_ms) < 0 || q->ttl_ms <= 0
				   ? call_fault(c, EINVAL, NULL, "no duration: %s; use 30s, 10m, 72h", word + 4)
				   : 0;
	if (strcmp(word, "gitignore") == 0) {
		archive_query(&q->query, "gitignore", "1");
		return 0;
	}
	if (strncmp(word, "exclude=", 8) == 0 && word[8]) {
		archive_query(&q->query, "exclude", word + 8);
		return 0;
	}
	if (first)
		return take_dir(c, word, &q->dir);
	return call_fault(c, EINVAL, NULL,
		"not understood: %s; write DIR [name=N] [ttl=DUR] [gitignore] [exclude=G]...", word);
}

static int parse_words(struct call *c, const char *line, size_t n, struct backup_request *q)
{
	AUTO_FREE char **argv = NULL;
	int argc = 0, err = ctl_split(c, line, n, &argc, &argv);
	for (int i = 0; !err && i < argc; i++)
		err = take_word(c, argv[i], i == 0, q);
	return err;
}

static int bad_value(struct call *c, const char *key)
{
	return call_fault(c, EINVAL, "INVALID_BACKUP_CONFIG", "%s: not such a value", key);
}

static int parse_excludes(struct call *c, struct json_object *list, struct backup_request *q)
{
	if (!json_object_is_type(list, json_type_array))
		return bad_value(c, "excludes");
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		struct json_object *v = json_object_array_get_idx(list, i);
		if (!json_object_is_type(v, json_type_string))
			return bad_value(c, "excludes");
		archive_query(&q->query, "exclude", json_object_get_string(v));
	}
	return 0;
}

/* createBackup's options. */
static int parse_json(struct call *c, const char *text, size_t n, struct backup_request *q)
{
	static const char *const keys[] = {
		"dir", "name", "ttl", "gitignore", "excludes", "localBucket", NULL};
	struct json_object *o = NULL, *v;
	int err = ctl_parse_json(c, text, n, &o);
	if (!err)
		err = ctl_check_keys(c, o, keys);
	if (!err && json_object_object_get_ex(o, "dir", &v))
		err = json_object_is_type(v, json_type_string)
				  ? take_dir(c, json_object_get_string(v), &q->dir)
				  : bad_value(c, "dir");
	if (!err && json_object_object_get_ex(o, "name", &v))
		err = json_object_is_type(v, json_type_string) ? take_name(c, json_object_get_string(v), q)
													   : bad_value(c, "name");
	if (!err && json_object_object_get_ex(o, "ttl", &v)) {
		int64_t seconds = json_object_is_type(v, json_type_int) ? json_object_get_int64(v) : 0;
		if (seconds <= 0 || seconds > INT64_MAX / 1000)
			err = bad_value(c, "ttl");
		else
			q->ttl_ms = seconds * 1000;
	}
	if (!err && json_object_object_get_ex(o, "gitignore", &v) && json_object_get_boolean(v))
		archive_query(&q->query, "gitignore", "1");
	if (!err && json_object_object_get_ex(o, "excludes", &v))
		err = parse_excludes(c, v, q);
	json_object_put(o);
	return err;
}

static int parse(struct call *c, const char *line, size_t n, struct backup_request *q)
{
	int err = ctl_is_json(line, n) ? parse_json(c, line, n, q) : parse_words(c, line, n, q);
	if (!err && !q->dir)
		return call_fault(
			c, EINVAL, "INVALID_BACKUP_CONFIG", "no directory; write DIR [name=N] ...");
	archive_query(&q->query, "compression", "zstd");
	return err ? err : buf_error(&q->query);
}

/* A reader of an archive that waits on a call. */
struct awaited {
	struct call *call;
	_Atomic bool changed;
};

static void awaited_wake(void *arg)
{
	struct awaited *a = arg;
	atomic_store(&a->changed, true);
	call_wake(a->call);
}

static bool awaited_changed(void *arg)
{
	return atomic_exchange(&((struct awaited *)arg)->changed, false);
}

static int write_all(int fd, const char *p, size_t n)
{
	while (n) {
		ssize_t done = write(fd, p, n);
		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return done < 0 ? -errno : -EIO;
		p += done;
		n -= (size_t)done;
	}
	return 0;
}

static int store_fault(struct call *c, int err)
{
	return err == -EINTR ? err
						 : call_fault(c, -err, "BACKUP_CREATE_FAILED",
							   "it cannot be kept on this machine: %s", strerror(-err));
}

/*
 * May the disk of fd take that much more? An archive has no other limit: a program in the sandbox that renames a file ahead of
 * the walk makes it endless, and min-free= ends it, for it is dropped then.
 */
static int check_space(struct sandbox *sb, struct call *c, int fd)
{
	struct statvfs fs;
	uint64_t keep = sandbox_options(sb)->min_free, left;
	if (!keep || fstatvfs(fd, &fs) < 0)
		return 0;
	if (__builtin_mul_overflow((uint64_t)fs.f_bavail, (uint64_t)fs.f_frsize, &left))
		left = UINT64_MAX;
	if (left >= SPACE_STEP && left - SPACE_STEP >= keep)
		return 0;
	return call_fault(c, ENOSPC, "BACKUP_CREATE_FAILED",
		"nothing was kept: %llu MiB are left on the disk of the backups, and %llu MiB are to stay "
		"free; "
		"remove something there, leave something out by exclude=, or mount with a smaller -o "
		"min-free=",
		(unsigned long long)(left >> 20), (unsigned long long)(keep >> 20));
}

/* Packs into fd. */
static int pack(struct sandbox *sb, struct call *c, const struct backup_request *q, int fd)
{
	struct awaited a = {.call = c};
	struct archive_reader *r = NULL;
	AUTO_FREE char *piece = malloc(PIECE);
	if (!piece)
		return -ENOMEM;
	uint64_t unchecked = 0;
	int err = check_space(sb, c, fd);
	if (!err)
		err = archive_reader_open(sb, c, q->dir, q->query.data, awaited_wake, &a, &r);
	while (!err) {
		ssize_t got = archive_reader_next(r, piece, PIECE);
		if (got == 0)
			break;
		if (got > 0) {
			int bad = call_cancelled(c) ? -EINTR : write_all(fd, piece, (size_t)got);
			err = bad ? store_fault(c, bad) : 0;
			unchecked += (uint64_t)got;
			if (!err && unchecked >= SPACE_STEP) {
				err = check_space(sb, c, fd);
				unchecked = 0;
			}
		} else if (got == -EAGAIN) {
			err = call_wait(c, awaited_changed, &a, -1);
		} else {
			archive_reader_fault(r, c);
			err = (int)got;
		}
	}
	archive_reader_close(r);
	return err;
}

static int backup_new(
	const struct ctl_ref *ref, struct call *c, const char *line, size_t n, struct buf *answer)
{
	AUTO_REQUEST q = {.query = BUF_INIT};
	AUTO_FD int store = -1;
	AUTO_FD int fd = -1;
	char id[33];
	int err = parse(c, line, n, &q);
	if (!err)
		err = sandbox_barrier(ref->sandbox, c);
	if (!err)
		err = backup_store_open(ref->sandbox, c, true, &store);
	if (err)
		return err;
	err = backup_store_new(store, id, &fd);
	if (err)
		return store_fault(c, err);
	struct backup_info info = {.dir = q.dir, .name = q.name};
	clock_gettime(CLOCK_REALTIME, &info.created);
	info.expires = q.ttl_ms ? info.created.tv_sec + (q.ttl_ms + 999) / 1000 : 0;
	err = pack(ref->sandbox, c, &q, fd);
	if (!err) {
		err = backup_store_commit(store, id, fd, &info);
		if (err)
			err = store_fault(c, err);
	}
	if (err)
		backup_store_drop(store, id);
	else
		buf_printf(answer, "%s\n", id);
	return err;
}

/* --- ID --- */

static int no_backup(struct call *c)
{
	return call_fault(c, ESTALE, "BACKUP_EXPIRED", "it has expired or was removed");
}

static int backup_show(const struct ctl_ref *ref, struct call *c, struct buf *out)
{
	AUTO_FD int store = -1;
	AUTO_BACKUP_INFO info = {0};
	int err = backup_store_open(ref->sandbox, c, false, &store);
	if (!err)
		err = backup_store_info(store, ref->object, &info);
	if (err)
		return err == -ENOENT ? no_backup(c) : err;
	buf_printf(out, "dir %s\nname%s%s\ncreated ", info.dir, info.name ? " " : "",
		info.name ? info.name : "");
	ctl_put_time(out, &info.created);
	buf_str(out, "\nexpires ");
	if (info.expires) {
		struct timespec t = {info.expires, 0};
		ctl_put_time(out, &t);
	} else {
		buf_str(out, "never");
	}
	buf_printf(out, "\nbytes %llu\n", (unsigned long long)info.bytes);
	return 0;
}

/* Sends what fd has to be unpacked. */
static int unpack(struct sandbox *sb, struct call *c, int fd, const char *dir, uint64_t *entries)
{
	struct archive_writer *w = NULL;
	AUTO_FREE char *piece = malloc(PIECE);
	if (!piece)
		return -ENOMEM;
	int err = archive_writer_open(sb, c, dir, "&replace=1", &w);
	while (!err) {
		ssize_t n = read(fd, piece, PIECE);
		if (n == 0)
			break;
		if (n > 0)
			err = archive_writer_write(w, c, piece, (size_t)n);
		else if (errno != EINTR)
			err = call_fault(c, errno, "BACKUP_RESTORE_FAILED",
				"the backup cannot be read on this machine: %s", strerror(errno));
	}
	if (!err)
		err = archive_writer_finish(w, c, entries);
	archive_writer_close(w);
	return err;
}

static int make_dir(struct sandbox *sb, struct call *c, const char *dir)
{
	struct json_object *o = json_object_new_object();
	bool ok = json_add(o, "path", json_object_new_string(dir)) &&
			  json_add(o, "recursive", json_object_new_boolean(true));
	int err = ok ? sandbox_api(sb, c, "POST", "/api/mkdir", o, NULL) : -ENOMEM;
	json_object_put(o);
	return err;
}

static int restore(const struct ctl_ref *ref, struct call *c, char **dir, uint64_t *entries)
{
	AUTO_FD int store = -1;
	AUTO_FD int fd = -1;
	AUTO_BACKUP_INFO info = {0};
	int err = backup_store_open(ref->sandbox, c, false, &store);
	if (!err)
		err = backup_store_info(store, ref->object, &info);
	if (!err)
		err = backup_store_read(store, ref->object, &fd);
	if (err)
		return err == -ENOENT ? no_backup(c) : err;
	if (!*dir)
		*dir = steal(info.dir);
	err = sandbox_barrier(ref->sandbox, c);
	if (!err)
		err = make_dir(ref->sandbox, c, *dir);
	if (!err)
		err = unpack(ref->sandbox, c, fd, *dir, entries);
	sandbox_invalidate(ref->sandbox);
	return err;
}

static int backup_call(
	const struct ctl_ref *ref, struct call *c, const char *line, size_t n, struct buf *answer)
{
	AUTO_FREE char **argv = NULL;
	AUTO_FREE char *dir = NULL;
	uint64_t entries = 0;
	int argc = 0, err = ctl_split(c, line, n, &argc, &argv);
	if (!err && (argc < 1 || argc > 2 || strcmp(argv[0], "restore") != 0))
		err = call_fault(
			c, EINVAL, NULL, "not understood: %s; write restore [DIR]", argc ? argv[argc - 1] : "");
	if (!err && argc == 2)
		err = take_dir(c, argv[1], &dir);
	if (!err)
		err = restore(ref, c, &dir, &entries);
	if (!err)
		buf_printf(answer, "replaced %s entries %llu\n", dir, (unsigned long long)entries);
	return err;
}

/* --- the set --- */

static void *id_get(void *object)
{
	return strdup(object);
}

static void id_put(void *object)
{
	free(object);
}

static int backup_find(const struct ctl_ref *dir, struct call *c, const char *name, void **object)
{
	AUTO_FD int store = -1;
	AUTO_BACKUP_INFO info = {0};
	int err = backup_id_ok(name) ? backup_store_open(dir->sandbox, c, false, &store) : -ENOENT;
	if (!err)
		err = backup_store_info(store, name, &info);
	if (err)
		return err;
	*object = strdup(name);
	return *object ? 0 : -ENOMEM;
}

static int backup_each(
	const struct ctl_ref *dir, struct call *c, bool (*cb)(const char *name, void *arg), void *arg)
{
	AUTO_FD int store = -1;
	int err = backup_store_open(dir->sandbox, c, false, &store);
	return err == -ENOENT ? 0 : err ? err : backup_store_each(store, cb, arg);
}

static int backup_remove(const struct ctl_ref *dir, struct call *c, const char *name)
{
	AUTO_FD int store = -1;
	int err = backup_store_open(dir->sandbox, c, false, &store);
	return err ? err : backup_store_remove(store, name);
}

static const struct ctl_row backup_row = {
	.name = "ID",
	.mode = 0600,
	.kind = CTL_CALL,
	.call = backup_call,
	.show = backup_show,
	.grammar = "R dir name created expires bytes lines; W restore [DIR]: the directory then holds "
			   "what the backup has and nothing else; rm forgets it",
};

static const struct ctl_set backup_objects = {
	.row = &backup_row,
	.find = backup_find,
	.each = backup_each,
	.get = id_get,
	.put = id_put,
	.remove = backup_remove,
};

static const struct ctl_row backup_rows[] = {
	{.name = "new",
		.mode = 0600,
		.kind = CTL_CALL,
		.unlisted = true,
		.call = backup_new,
		.grammar = "W DIR [name=N] [ttl=DUR] [gitignore] [exclude=G]..., or createBackup's JSON, "
				   "waits; RW answer the id. Without ttl= it is kept until rm; ENOSPC "
				   "before less than min-free= is left here"},
	{.name = NULL}};

const struct ctl_dir ctl_backups_dir = {
	.help = "Copies of directories of the sandbox, kept on this machine.",
	.rows = backup_rows,
	.set = &backup_objects,
};
