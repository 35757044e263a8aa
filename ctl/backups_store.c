/*
 * Backups on the host's disk: $XDG_DATA_HOME/sandboxfs/.backups/SERVER/SANDBOX/ (a name that no sandbox has), outside of everything that a sandbox sees, for this user alone.
 *
 * A backup is an archive, ID.tar, and ID, which says of what and until when. ID comes last and goes first, so what has one has an
 * archive; what a crash leaves besides is removed when it is a day old. Stateless: other mounts of the same server see the same.
 */
#include "backups.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"

enum { ID_SIZE = 32, TEXT_MAX = 16 << 10, LEFT_OVER_S = 24 * 3600 };

void backup_info_release(struct backup_info *i)
{
	free(i->dir);
	free(i->name);
	*i = (struct backup_info){0};
}

bool backup_id_ok(const char *id)
{
	return strlen(id) == ID_SIZE && strspn(id, "0123456789abcdef") == ID_SIZE;
}

/* --- the directory --- */

/* Bytes that a name of a file or of a server may not have are written as %XX. */
static void put_name(struct buf *out, const char *s)
{
	for (const unsigned char *p = (const unsigned char *)s; *p; p++) {
		bool plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
					 (*p >= '0' && *p <= '9') || strchr("-_:", *p) ||
					 (*p == '.' && p != (const unsigned char *)s);
		if (plain)
			buf_char(out, (char)*p);
		else
			buf_printf(out, "%%%02X", *p);
	}
}

static int make_parents(char *path)
{
	for (char *p = path + 1;; p++) {
		if (*p && *p != '/')
			continue;
		char was = *p;
		*p = 0;
		if (mkdir(path, 0700) < 0 && errno != EEXIST)
			return -errno;
		*p = was;
		if (!was)
			return 0;
	}
}

int backup_store_open(struct sandbox *sb, struct call *c, bool make, int *fd)
{
	const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
	AUTO_BUF path = BUF_INIT;
	if (data && *data == '/')
		buf_str(&path, data);
	else if (geteuid() == 0)
		buf_str(&path, "/var/lib");
	else if (home && *home == '/')
		buf_printf(&path, "%s/.local/share", home);
	else
		return call_fault(c, ENOENT, NULL,
			"there is no place for backups: neither HOME nor XDG_DATA_HOME is set");
	buf_str(&path, "/sandboxfs/.backups/");
	put_name(&path, sandbox_options(sb)->server);
	buf_char(&path, '/');
	put_name(&path, sandbox_name(sb));
	if (buf_error(&path))
		return -ENOMEM;
	int err = make ? make_parents(path.data) : 0;
	if (!err) {
		*fd = open(path.data, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		err = *fd < 0 ? -errno : 0;
	}
	if (err && (make || err != -ENOENT))
		return call_fault(c, -err, NULL, "%s: %s", path.data, strerror(-err));
	return err;
}

/* --- one backup --- */

static int archive_name(const char *id, char name[ID_SIZE + 8])
{
	if (!backup_id_ok(id))
		return -ENOENT;
	snprintf(name, ID_SIZE + 8, "%s.tar", id);
	return 0;
}

static int read_text(int store, const char *id, struct buf *text)
{
	AUTO_FD int fd = openat(store, id, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	char *p = buf_reserve(text, TEXT_MAX);
	ssize_t n = p ? read(fd, p, TEXT_MAX) : -1;
	if (n < 0)
		return p ? -errno : -ENOMEM;
	text->size += (size_t)n;
	buf_char(text, 0);
	return buf_error(text);
}

static int64_t number_of(const char *s)
{
	int64_t n = 0;
	return ctl_parse_number(s, 0, INT64_MAX, &n) < 0 ? 0 : n;
}

/* `name value` lines. */
static int parse_text(char *text, struct backup_info *out)
{
	char *save = NULL;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *value = strchr(line, ' ');
		if (!value)
			continue;
		*value++ = 0;
		if (strcmp(line, "dir") == 0 && !out->dir)
			out->dir = strdup(value);
		else if (strcmp(line, "name") == 0 && !out->name)
			out->name = strdup(value);
		else if (strcmp(line, "created") == 0)
			out->created.tv_sec = number_of(value);
		else if (strcmp(line, "expires") == 0)
			out->expires = number_of(value);
	}
	return out->dir && *out->dir == '/' ? 0 : -EIO;
}

int backup_store_info(int store, const char *id, struct backup_info *out)
{
	char name[ID_SIZE + 8];
	AUTO_BUF text = BUF_INIT;
	struct stat st;
	*out = (struct backup_info){0};
	int err = archive_name(id, name);
	if (!err)
		err = read_text(store, id, &text);
	if (!err)
		err = parse_text(text.data, out);
	if (!err && fstatat(store, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		err = -errno;
	if (!err && out->expires && out->expires <= time(NULL)) {
		(void)backup_store_remove(store, id); /* it is asked for again when it is seen again */
		err = -ENOENT;
	}
	if (err)
		backup_info_release(out);
	else
		out->bytes = (uint64_t)st.st_size;
	return err;
}

int backup_store_read(int store, const char *id, int *fd)
{
	char name[ID_SIZE + 8];
	int err = archive_name(id, name);
	if (err)
		return err;
	*fd = openat(store, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	return *fd < 0 ? -errno : 0;
}

int backup_store_new(int store, char id[33], int *fd)
{
	unsigned char random[ID_SIZE / 2];
	char name[ID_SIZE + 8];
	if (getrandom(random, sizeof random, 0) != sizeof random)
		return -EIO;
	for (size_t i = 0; i < sizeof random; i++)
		snprintf(id + 2 * i, 3, "%02x", random[i]);
	(void)archive_name(id, name); /* it is a good one */
	*fd = openat(store, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	return *fd < 0 ? -errno : 0;
}

int backup_store_commit(int store, const char *id, int fd, const struct backup_info *info)
{
	AUTO_BUF text = BUF_INIT;
	AUTO_BUF temporary = BUF_INIT;
	buf_printf(&text, "dir %s\n", info->dir);
	if (info->name)
		buf_printf(&text, "name %s\n", info->name);
	buf_printf(&text, "created %lld\nexpires %lld\n", (long long)info->created.tv_sec,
		(long long)info->expires);
	buf_printf(&temporary, "%s.new", id);
	if (buf_error(&text) || buf_error(&temporary))
		return -ENOMEM;
	if (fsync(fd) < 0)
		return -errno;
	AUTO_FD int to = openat(store, temporary.data, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (to < 0)
		return -errno;
	errno = EIO; /* of a short write */
	if (write(to, text.data, text.size) != (ssize_t)text.size || fsync(to) < 0 ||
		renameat(store, temporary.data, store, id) < 0 || fsync(store) < 0) {
		int err = -errno;
		(void)unlinkat(store, temporary.data, 0); /* or it goes when it is old */
		return err;
	}
	return 0;
}

void backup_store_drop(int store, const char *id)
{
	char name[ID_SIZE + 8];
	if (archive_name(id, name) == 0)
		(void)unlinkat(store, name, 0); /* or it goes when it is old */
}

int backup_store_remove(int store, const char *id)
{
	if (!backup_id_ok(id))
		return -ENOENT;
	if (unlinkat(store, id, 0) < 0)
		return -errno;
	backup_store_drop(store, id);
	return 0;
}

/* What a program that was killed has left. */
static void remove_left_over(int store, const char *name)
{
	struct stat st;
	char id[ID_SIZE + 1];
	if (strlen(name) != ID_SIZE + 4 || fstatat(store, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		st.st_mtime + LEFT_OVER_S > time(NULL))
		return;
	memcpy(id, name, ID_SIZE);
	id[ID_SIZE] = 0;
	if (faccessat(store, id, F_OK, 0) < 0 && errno == ENOENT)
		(void)unlinkat(store, name, 0); /* nobody's business any more */
}

int backup_store_each(int store, bool (*cb)(const char *id, void *arg), void *arg)
{
	int fd = openat(store, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		int err = -errno;
		if (fd >= 0)
			close(fd);
		return err;
	}
	bool more = true;
	for (struct dirent *d; more && (d = readdir(dir));) {
		AUTO_BACKUP_INFO info = {0};
		if (!backup_id_ok(d->d_name))
			remove_left_over(store, d->d_name);
		else if (backup_store_info(store, d->d_name, &info) == 0)
			more = cb(d->d_name, arg);
	}
	closedir(dir);
	return 0;
}
