/*
 * A tar stream into a directory; see tar.h. libarchive reads; the files are made here, each from a descriptor of its directory that
 * was reached from the top without following a link, so that no name leads out, not even through a link of the same
 * archive. A file appears whole, under a temporary name first.
 */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "cleanup.h"
#include "fileop_server.h"
#include "tar.h"
#include "tar_chain.h"
#include "tar_later.h"
#include "text.h"

enum { READ_BLOCK = 64 << 10, SPACE_STEP = 4 << 20, ENTRY_SIZE = 4 << 10, END_BLOCK = 512 };

struct unpacking {
	struct server *server;
	struct archive *archive;
	struct tar_result *result;
	int fd;                 /* of the archive */
	struct tar_chain chain; /* to the newest directory */
	struct later
		later; /* a directory's mode and times are set last: what is made in it needs the one and changes the other */
	uint64_t unchecked; /* bytes written since the last look at the free space */
	char block[READ_BLOCK];
};

void tar_result_release(struct tar_result *r)
{
	free(r->path);
	free(r->why);
	*r = (struct tar_result){0, 0, NULL, NULL};
}

/* Notes where and why it ends, once; returns err. */
static int fail(struct unpacking *u, int err, const char *path, const char *fmt, ...)
{
	AUTO_BUF why = BUF_INIT;
	if (u->result->why)
		return err;
	if (fmt) {
		va_list ap;
		va_start(ap, fmt);
		buf_vprintf(&why, fmt, ap);
		va_end(ap);
	} else {
		buf_str(&why, strerrordesc_np(-err));
	}
	u->result->path = path ? strdup(path) : NULL;
	u->result->why = buf_steal(&why);
	return err;
}

/* What libarchive has to say. */
static const char *words(struct archive *a)
{
	const char *s = archive_error_string(a);
	return s ? s : "the archive is cut or broken";
}

/* --- names --- */

/*
 * The name as it is meant below the top: no empty parts, no dots; "" is the top itself. New in *out; 0, -EPERM: it leads
 * out.
 */
static int name_clean(const char *name, char **out)
{
	AUTO_BUF b = BUF_INIT;
	if (!name || *name == '/')
		return -EPERM;
	while (*name) {
		size_t n = strcspn(name, "/");
		if (n == 2 && strncmp(name, "..", 2) == 0)
			return -EPERM;
		if (n && !(n == 1 && *name == '.')) {
			if (b.size)
				buf_char(&b, '/');
			buf_add(&b, name, n);
		}
		name += n + (name[n] == '/');
	}
	*out = b.size ? buf_steal(&b) : strdup("");
	return *out ? 0 : -ENOMEM;
}

/* The directory of that name in at, made where it is missing and `make` says so: a new descriptor or a negative errno. */
static int directory_open(int at, const char *name, bool make)
{
	const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
	int fd = openat(at, name, flags);
	if (fd < 0 && errno == ENOENT && make) {
		if (mkdirat(at, name, 0755) < 0 && errno != EEXIST)
			return -errno;
		fd = openat(at, name, flags);
	}
	if (fd >= 0)
		return fd;
	struct stat st;
	int err = -errno;
	bool link = fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode);
	return link ? -EPERM : err;
}

/*
 * The directory that the first n bytes of path (cleaned) name: a borrowed descriptor, until the next call, or a negative errno. Entries come
 * near each other, so the way goes on from where the last one ended.
 */
static int reach(struct unpacking *u, const char *path, size_t n, bool make)
{
	struct tar_chain *c = &u->chain;
	const char *end = path + n;
	size_t level = 1, part;
	for (; path < end && level < c->depth; level++, path += part + (path[part] == '/')) {
		part = strcspn(path, "/");
		const char *name = c->levels[level].name;
		if (strncmp(name, path, part) != 0 || name[part])
			break;
	}
	while (c->depth > level)
		chain_up(c);
	for (; path < end; path += part + (path[part] == '/')) {
		part = strcspn(path, "/");
		AUTO_FREE char *name = strndup(path, part);
		int at = name ? chain_fd(c) : -ENOMEM;
		int fd = at < 0 ? at : directory_open(at, name, make);
		int err = fd < 0 ? fd : chain_down(c, name, fd);
		if (err < 0)
			return err;
	}
	return chain_fd(c);
}

/* The directory that holds path: borrowed descriptor, and the last part of the name in *name (borrowed). */
static int parent_reach(struct unpacking *u, const char *path, const char **name, bool make)
{
	const char *slash = strrchr(path, '/');
	*name = slash ? slash + 1 : path;
	return reach(u, path, slash ? (size_t)(slash - path) : 0, make);
}

static char *temporary_name(void)
{
	char letters[13], *name = NULL;
	text_random(letters, 12);
	return asprintf(&name, ".sandboxd-%s", letters) < 0 ? NULL : name;
}

/* Gives what has a temporary name its own; what is in the way goes, but for a directory that holds something. */
static int name_take(int dir, const char *temporary, const char *name)
{
	int err = renameat(dir, temporary, dir, name) < 0 ? -errno : 0;
	if (err == -EISDIR && unlinkat(dir, name, AT_REMOVEDIR) == 0)
		err = renameat(dir, temporary, dir, name) < 0 ? -errno : 0;
	/* Two names of one file stay as they are: then this is the temporary one. */
	if (unlinkat(dir, temporary, 0) < 0 && errno != ENOENT && !err)
		err = -errno;
	return err;
}

/* --- attributes --- */

static struct timespec entry_time(struct archive_entry *entry)
{
	if (!archive_entry_mtime_is_set(entry))
		return (struct timespec){.tv_nsec = UTIME_NOW};
	return (struct timespec){
		.tv_sec = archive_entry_mtime(entry), .tv_nsec = archive_entry_mtime_nsec(entry)};
}

/* Owners are kept where this may be done at all: root in a container. */
static int take_owner(struct archive_entry *entry, int fd)
{
	if (geteuid() != 0 ||
		fchown(fd, (uid_t)archive_entry_uid(entry), (gid_t)archive_entry_gid(entry)) == 0)
		return 0;
	/* A sandbox of one user has no other: all is its own then. */
	return errno == EPERM || errno == EINVAL ? 0 : -errno;
}

static void take_attributes(struct archive_entry *entry, int fd)
{
	const char *name;
	const void *value;
	size_t n;
	archive_entry_xattr_reset(entry);
	while (archive_entry_xattr_next(entry, &name, &value, &n) == ARCHIVE_OK)
		if (strncmp(name, "user.", 5) == 0)
			/* A file system without them keeps none; the content is what matters. */
			(void)fsetxattr(fd, name, value, n, 0);
}

static int take_times(int dir, const char *name, const struct timespec *mtime)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_NOW}, *mtime};
	return utimensat(dir, name, times, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

/* --- kinds of entries; dir and name are where it goes --- */

static int space(struct unpacking *u, size_t n)
{
	u->unchecked += n;
	if (u->unchecked < SPACE_STEP)
		return 0;
	u->unchecked = 0;
	return fileop_server_check_space(u->server->files, SPACE_STEP);
}

static int copy_content(struct unpacking *u, int fd, const char *path)
{
	for (;;) {
		const void *p;
		size_t n;
		la_int64_t off;
		int status = archive_read_data_block(u->archive, &p, &n, &off);
		if (status == ARCHIVE_EOF)
			return 0;
		if (status != ARCHIVE_OK)
			return fail(u, -EIO, path, "%s", words(u->archive));
		int err = space(u, n);
		while (!err && n) {
			ssize_t done = pwrite(fd, p, n, off);
			if (done < 0 && errno != EINTR)
				err = -errno;
			if (done <= 0)
				continue;
			p = (const char *)p + done;
			n -= (size_t)done;
			off += done;
			u->result->bytes += (uint64_t)done;
		}
		if (err < 0)
			return err;
	}
}

static int take_file(
	struct unpacking *u, struct archive_entry *entry, int dir, const char *name, const char *path)
{
	AUTO_FREE char *temporary = temporary_name();
	if (!temporary)
		return -ENOMEM;
	AUTO_FD int fd =
		openat(dir, temporary, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	struct timespec times[2] = {{.tv_nsec = UTIME_NOW}, entry_time(entry)};
	int err = copy_content(u, fd, path);
	/* A hole at the end is in the size alone. */
	if (!err && archive_entry_size_is_set(entry) && ftruncate(fd, archive_entry_size(entry)) < 0)
		err = -errno;
	if (!err)
		err = take_owner(entry, fd);
	if (!err)
		take_attributes(entry, fd);
	if (!err && (fchmod(fd, archive_entry_perm(entry)) < 0 || futimens(fd, times) < 0))
		err = -errno;
	if (err < 0) {
		unlinkat(dir, temporary, 0);
		return err;
	}
	return name_take(dir, temporary, name);
}

static int take_hard_link(struct unpacking *u, const char *target, const char *path)
{
	AUTO_FREE char *clean = NULL;
	AUTO_FREE char *temporary = temporary_name();
	const char *source, *name;
	int err = name_clean(target, &clean);
	if (err < 0 || !temporary || !*clean)
		return err < 0 ? err : !temporary ? -ENOMEM : -EPERM;
	int from = parent_reach(u, clean, &source, false);
	if (from < 0)
		return from;
	AUTO_FD int kept = fcntl(from, F_DUPFD_CLOEXEC, 3);
	if (kept < 0)
		return -errno;
	int dir = parent_reach(u, path, &name, true);
	if (dir < 0)
		return dir;
	if (linkat(kept, source, dir, temporary, 0) < 0)
		return -errno;
	return name_take(dir, temporary, name);
}

static int take_special(struct archive_entry *entry, int dir, const char *name)
{
	AUTO_FREE char *temporary = temporary_name();
	struct timespec time = entry_time(entry);
	mode_t type = archive_entry_filetype(entry);
	if (!temporary)
		return -ENOMEM;
	int made = type == AE_IFLNK
				   ? symlinkat(archive_entry_symlink(entry) ? archive_entry_symlink(entry) : "",
						 dir, temporary)
				   : mknodat(dir, temporary, (type & S_IFMT) | archive_entry_perm(entry),
						 makedev(archive_entry_rdevmajor(entry), archive_entry_rdevminor(entry)));
	if (made < 0)
		return -errno;
	int err = 0;
	if (type != AE_IFLNK && fchmodat(dir, temporary, archive_entry_perm(entry), 0) < 0)
		err = -errno;
	if (geteuid() == 0 &&
		fchownat(dir, temporary, (uid_t)archive_entry_uid(entry), (gid_t)archive_entry_gid(entry),
			AT_SYMLINK_NOFOLLOW) < 0 &&
		errno != EPERM && errno != EINVAL)
		err = -errno;
	if (!err)
		err = take_times(dir, temporary, &time);
	if (err < 0) {
		unlinkat(dir, temporary, 0);
		return err;
	}
	return name_take(dir, temporary, name);
}

static int take_directory(struct unpacking *u, struct archive_entry *entry, const char *path)
{
	if (*path) {
		const char *name;
		struct stat st;
		int dir = parent_reach(u, path, &name, true);
		if (dir < 0)
			return dir;
		/* A link or a file of that name gives way, as to any other entry. */
		if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISDIR(st.st_mode) &&
			unlinkat(dir, name, 0) < 0)
			return -errno;
	}
	int fd = reach(u, path, strlen(path), true);
	if (fd < 0)
		return fd;
	int err = take_owner(entry, fd);
	if (err < 0)
		return err;
	take_attributes(entry, fd);
	/* Until the end it can be written into. */
	if (*path && fchmod(fd, archive_entry_perm(entry) | S_IRWXU) < 0)
		return -errno;
	return later_push(&u->later, path, archive_entry_perm(entry), entry_time(entry));
}

static int take_entry(struct unpacking *u, struct archive_entry *entry, const char *path)
{
	const char *link = archive_entry_hardlink(entry), *name;
	mode_t type = archive_entry_filetype(entry);
	if (!link && type == AE_IFDIR)
		return take_directory(u, entry, path);
	if (!*path)
		return fail(u, -EPERM, ".", "the archive gives the directory itself another type");
	int dir = parent_reach(u, path, &name, true);
	if (dir < 0)
		return dir == -EPERM ? fail(u, dir, path, "its directory is a link") : dir;
	if (strlen(name) > NAME_MAX)
		return -ENAMETOOLONG;
	if (link)
		return take_hard_link(u, link, path);
	if (type == AE_IFREG)
		return take_file(u, entry, dir, name, path);
	if (type == AE_IFLNK || type == AE_IFIFO || type == AE_IFCHR || type == AE_IFBLK)
		return take_special(entry, dir, name);
	return 0;
}

/* --- the whole --- */

static int one(struct unpacking *u, struct archive_entry *entry)
{
	const char *name = archive_entry_pathname(entry);
	/* Without a locale that speaks UTF-8 the names of pax headers are only to be had so. */
	if (!name)
		name = archive_entry_pathname_utf8(entry);
	AUTO_FREE char *path = NULL;
	int err = name_clean(name, &path);
	if (err == -EPERM)
		return fail(u, err, name, "the name leads out of the directory");
	if (!err)
		err = space(u, ENTRY_SIZE);
	if (!err)
		err = take_entry(u, entry, path);
	if (err < 0)
		return fail(u, err, path, NULL);
	u->result->entries++;
	return 0;
}

/*
 * Directories get their modes and times, inner ones first. Those that the archive itself has taken away since are left
 * out.
 */
static int finish_directories(struct unpacking *u)
{
	AUTO_BUF path = BUF_INIT;
	struct timespec times[2] = {{.tv_nsec = UTIME_NOW}};
	mode_t mode;
	int more;
	while ((more = later_pop(&u->later, &path, &mode, &times[1])) > 0) {
		/* Not by the chain: the way back from it may need rights that it has no more. */
		const char *name;
		int dir = parent_reach(u, path.data, &name, false);
		AUTO_FD int fd = dir < 0 ? dir : directory_open(dir, *name ? name : ".", false);
		if (fd < 0)
			continue;
		if (fchmod(fd, mode) < 0 || futimens(fd, times) < 0)
			return fail(u, -errno, path.data, NULL);
	}
	return more < 0 ? fail(u, more, NULL, NULL) : 0;
}

static la_ssize_t on_read(struct archive *a, void *arg, const void **p)
{
	struct unpacking *u = arg;
	ssize_t n;
	do
		n = read(u->fd, u->block, sizeof u->block);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		archive_set_error(a, errno, "the archive cannot be read");
	*p = u->block;
	return n;
}

static int archive_make(struct unpacking *u)
{
	struct archive *a = u->archive = archive_read_new();
	if (!a)
		return -ENOMEM;
	/* What libarchive does itself: for others it would run programs. */
	archive_read_support_filter_gzip(a);
	archive_read_support_filter_zstd(a);
	archive_read_support_filter_xz(a);
	archive_read_support_filter_bzip2(a);
	archive_read_support_filter_lz4(a);
	archive_read_support_format_tar(a);
	if (archive_read_open(a, u, NULL, on_read, NULL) == ARCHIVE_OK)
		return 0;
	return fail(u, -EIO, NULL, "%s", words(a));
}

static int unpack_all(struct unpacking *u)
{
	int err = archive_make(u);
	la_int64_t end = 0;
	while (!err) {
		struct archive_entry *entry;
		int status = archive_read_next_header(u->archive, &entry);
		if (status == ARCHIVE_EOF)
			break;
		if (status != ARCHIVE_OK && status != ARCHIVE_WARN)
			return fail(u, -EIO, NULL, "%s", words(u->archive));
		err = one(u, entry);
		if (!err && archive_read_data_skip(u->archive) < ARCHIVE_WARN)
			return fail(u, -EIO, NULL, "%s", words(u->archive));
		end = archive_filter_bytes(u->archive, 0);
	}
	/* An archive ends with a block of zeros: without it, it may have been cut between two files. */
	if (!err && archive_filter_bytes(u->archive, 0) < end + END_BLOCK)
		err = fail(u, -EIO, NULL, "the archive is cut: its end is missing");
	return err;
}

int tar_unpack_at(struct server *server, int fd, int root, struct tar_result *result)
{
	AUTO_FREE struct unpacking *u = calloc(1, sizeof *u);
	if (!u)
		return -ENOMEM;
	u->server = server;
	u->result = result;
	u->fd = fd;
	later_init(&u->later, root);
	int copy = fcntl(root, F_DUPFD_CLOEXEC, 3);
	int err = copy < 0 ? -errno : chain_down(&u->chain, NULL, copy);
	if (!err)
		err = unpack_all(u);
	int finished = u->chain.depth ? finish_directories(u) : 0;
	if (u->archive)
		archive_read_free(u->archive);
	chain_release(&u->chain);
	later_release(&u->later);
	return err < 0 ? err : finished;
}

int tar_unpack(struct server *server, int fd, const char *dir, struct tar_result *result)
{
	*result = (struct tar_result){0, 0, NULL, NULL};
	AUTO_FD int root = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return root < 0 ? -errno : tar_unpack_at(server, fd, root, result);
}
