/*
 * list-files. Walks directories itself, so that every entry is told once whatever its name. Owns the
 * queue of directories still to be read.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "common.h"
#include "json_make.h"
#include "routes.h"
#include "text.h"

static const char operation[] = "file.list";

struct pending {
	struct pending *next;
	char path[]; /* from the root of the list; "" is the root itself */
};

struct walk {
	const char *root;
	bool recursive, hidden;
	struct pending *first, **last;
	struct buf *out; /* the entries, with commas */
	size_t count;
	struct buf failed; /* the directory that could not be read */
};

static int queue(struct walk *w, const char *path)
{
	size_t n = strlen(path);
	struct pending *p = malloc(sizeof *p + n + 1);
	if (!p)
		return -ENOMEM;
	p->next = NULL;
	memcpy(p->path, path, n + 1);
	*w->last = p;
	w->last = &p->next;
	return 0;
}

static const char *type_name(mode_t mode)
{
	return S_ISREG(mode)   ? "file"
		   : S_ISDIR(mode) ? "directory"
		   : S_ISLNK(mode) ? "symlink"
						   : "other";
}

static void add_times_and_mode(struct json_object *o, const struct stat *st)
{
	struct tm tm;
	char day[64] = "1970-01-01T00:00:00", whole[96], letters[10];
	if (gmtime_r(&st->st_mtime, &tm))
		strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &tm);
	/* Ten digits of fraction, as the official server's find prints them. */
	snprintf(whole, sizeof whole, "%s.%09ld0", day, st->st_mtim.tv_nsec);
	for (int i = 0; i < 9; i++)
		letters[i] = st->st_mode & (0400u >> i) ? "rwxrwxrwx"[i] : '-';
	letters[9] = '\0';
	struct json_object *p = json_object_new_object();
	json_add(p, "readable", json_object_new_boolean(st->st_mode & 0400));
	json_add(p, "writable", json_object_new_boolean(st->st_mode & 0200));
	json_add(p, "executable", json_object_new_boolean(st->st_mode & 0100));
	json_add(o, "modifiedAt", json_object_new_string(whole));
	json_add(o, "mode", json_object_new_string(letters));
	json_add(o, "permissions", p);
}

static int add_entry(struct walk *w, const char *name, const char *relative, const struct stat *st)
{
	AUTO_BUF absolute = BUF_INIT;
	buf_printf(&absolute, "%s/%s", strcmp(w->root, "/") ? w->root : "", relative);
	if (buf_error(&absolute) < 0)
		return -ENOMEM;
	struct json_object *o = json_object_new_object();
	json_add(o, "name", text_json_str(name));
	json_add(o, "absolutePath", text_json_str(absolute.data));
	json_add(o, "relativePath", text_json_str(relative));
	json_add(o, "type", json_object_new_string(type_name(st->st_mode)));
	json_add(o, "size", json_object_new_int64(st->st_size));
	add_times_and_mode(o, st);
	size_t n = 0;
	const char *text = json_text_of(o, &n);
	if (text) {
		if (w->count++)
			buf_char(w->out, ',');
		buf_add(w->out, text, n);
	}
	json_object_put(o);
	return text ? buf_error(w->out) : -ENOMEM;
}

static int walk_entry(struct walk *w, int dir, const char *path, const char *name)
{
	struct stat st;
	/* What vanished since it was listed is not there. */
	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno;
	AUTO_BUF relative = BUF_INIT;
	buf_printf(&relative, "%s%s%s", path, *path ? "/" : "", name);
	if (buf_error(&relative) < 0)
		return -ENOMEM;
	int err = add_entry(w, name, relative.data, &st);
	if (!err && w->recursive && S_ISDIR(st.st_mode))
		err = queue(w, relative.data);
	return err;
}

static int walk_directory(struct walk *w, int root, const char *path)
{
	int fd = openat(root, *path ? path : ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return (errno == ENOENT || errno == ENOTDIR || errno == ELOOP) && *path ? 0 : -errno;
	DIR *dir = fdopendir(fd);
	if (!dir) {
		int err = -errno;
		close(fd);
		return err;
	}
	int err = 0;
	errno = 0;
	for (struct dirent *d; !err && (d = readdir(dir)); errno = 0) {
		if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0 ||
			(!w->hidden && d->d_name[0] == '.'))
			continue;
		err = walk_entry(w, dirfd(dir), path, d->d_name);
	}
	if (!err && errno)
		err = -errno;
	closedir(dir);
	return err;
}

static int walk_all(struct walk *w, int root)
{
	int err = queue(w, "");
	while (w->first) {
		struct pending *p = w->first;
		if (!err)
			err = walk_directory(w, root, p->path);
		if (err < 0 && !w->failed.size)
			buf_printf(&w->failed, "%s%s%s", w->root, *p->path ? "/" : "", p->path);
		w->first = p->next;
		if (!w->first)
			w->last = &w->first;
		free(p);
	}
	return err;
}

static enum MHD_Result list(
	struct request *r, const char *given, const char *path, int root, bool recursive, bool hidden)
{
	AUTO_BUF out = BUF_INIT;
	struct json_object *start = path_answer(given);
	json_add(start, "timestamp", text_time(NULL));
	const char *text = json_text_of(start, NULL);
	if (!text) {
		json_object_put(start);
		return reply_json(r, 500, NULL);
	}
	buf_str(&out, text);
	json_object_put(start);
	/* The entries go in before the closing brace, as text: as objects a large tree would not fit. */
	if (!buf_error(&out))
		out.size--;
	buf_str(&out, ",\"files\":[");
	struct walk w = {
		.root = path, .recursive = recursive, .hidden = hidden, .out = &out, .failed = BUF_INIT};
	w.last = &w.first;
	int err = walk_all(&w, root);
	AUTO_BUF failed = w.failed;
	if (err == -ENOMEM)
		return reply_error(r, ERR_INTERNAL, NULL, operation, "out of memory");
	if (err < 0)
		return reply_filesystem(r, path, operation, 1, "find: '%s': %s\n",
			failed.data ? failed.data : path, strerrordesc_np(-err));
	buf_printf(&out, "],\"count\":%zu}", w.count);
	return reply_bytes(r, 200, "application/json", &out, NULL);
}

enum MHD_Result route_list_files(struct request *r)
{
	enum MHD_Result result;
	enum session_kind kind;
	const char *session, *given;
	if (!request_json(r, false, &result) || !run_session(r, false, &kind, &session, &result))
		return result;
	AUTO_FREE char *path = request_session_path(r, "path", ERR_VALIDATION, &given, &result);
	if (!path)
		return result;
	struct stat st;
	/* Like the official server: a symlink is no directory unless a slash follows it. */
	if (lstat(path, &st) < 0 || (S_ISLNK(st.st_mode) && stat(path, &(struct stat){0}) < 0))
		return reply_no_file(r, path, operation);
	if (!S_ISDIR(st.st_mode))
		return reply_error(r, ERR_NOT_DIRECTORY, path_context(path, operation), operation,
			"Path is not a directory: %s", path);
	AUTO_FD int root = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		return reply_filesystem(
			r, path, operation, 1, "find: '%s': %s\n", path, strerrordesc_np(errno));
	for (size_t n = strlen(path); n > 1 && path[n - 1] == '/'; n--)
		path[n - 1] = '\0';
	struct json_object *options = NULL;
	if (!json_object_object_get_ex(r->json, "options", &options) ||
		!json_object_is_type(options, json_type_object))
		options = NULL;
	return list(r, given, path, root, options && json_flag(options, "recursive", false),
		options && json_flag(options, "includeHidden", false));
}
