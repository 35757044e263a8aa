/*
 * A directory as a tar stream; see tar.h. The walk is a stack of directories, each with the names that are still to be told;
 * content is read as the stream is asked for more.
 */
#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "cleanup.h"
#include "glob.h"
#include "tar.h"
#include "tar_chain.h"

enum {
	PIECE = 256 << 10,
	STEPS = 256,
	ATTRIBUTE_MAX = 64 << 10,
	LINKS_FIRST = 256,
	/* What reads archives takes no header of more than a megabyte; and each entry of a deep tree has its whole path in one. */
	PATH_LONGEST = 256 << 10
};

struct level {
	size_t path_size; /* of the writer's path */
	struct buf names; /* each with its NUL */
	size_t at;
};

struct link_seen {
	dev_t dev;
	ino_t ino;
	char *path; /* NULL: an empty place */
};

struct tar_writer {
	struct archive *archive;
	struct tar_filter filter;
	struct buf path; /* of the directory at the top of the stack */
	struct tar_chain chain;
	struct level *levels; /* of the chain's directories */
	size_t depth, capacity;
	struct link_seen *links; /* a hash table, at most half full */
	size_t links_count, links_capacity;
	int root;           /* until its turn comes, or -1 */
	int file;           /* being read, or -1 */
	size_t paths_count; /* in filter.paths */
	off_t off, size, data_end;
	bool short_told;
	struct buf *out; /* during tar_writer_next */
	struct buf piece;
	struct buf notes;
	bool notes_told, over;
	int err;
};

static const char zeros[PIECE];

bool tar_compression_find(const char *word, enum tar_compression *out)
{
	static const char *const words[] = {"none", "gzip", "zstd", "lz4"};
	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (strcmp(word, words[i]) == 0) {
			*out = (enum tar_compression)i;
			return true;
		}
	return false;
}

static bool is_excluded(const struct tar_writer *w, const char *path)
{
	const struct tar_filter *f = &w->filter;
	for (char **glob = f->globs; glob && *glob; glob++)
		if (glob_covers(*glob, path))
			return true;
	size_t low = 0, high = w->paths_count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int order = strcmp(f->paths[middle], path);
		if (!order)
			return true;
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return false;
}

/* --- notes --- */

static void note(struct tar_writer *w, const char *path, int err, const char *what)
{
	if (w->notes_told)
		buf_clear(&w->notes);
	w->notes_told = false;
	buf_printf(&w->notes, "%s: %s\n", path, what ? what : strerrordesc_np(err));
	if (!w->err)
		w->err = err;
}

const char *tar_writer_notes(struct tar_writer *w, int *err)
{
	*err = w->err;
	if (w->notes_told || !w->notes.size || buf_error(&w->notes) < 0)
		return "";
	w->notes_told = true;
	return w->notes.data;
}

/* --- hard links --- */

static struct link_seen *link_place(struct link_seen *table, size_t capacity, dev_t dev, ino_t ino)
{
	size_t i = ((size_t)ino * 2654435761u ^ (size_t)dev * 40503u) & (capacity - 1);
	while (table[i].path && (table[i].ino != ino || table[i].dev != dev))
		i = (i + 1) & (capacity - 1);
	return &table[i];
}

static int links_grow(struct tar_writer *w)
{
	size_t capacity = w->links_capacity ? w->links_capacity * 2 : LINKS_FIRST;
	struct link_seen *table = calloc(capacity, sizeof *table);
	if (!table)
		return -ENOMEM;
	for (size_t i = 0; i < w->links_capacity; i++)
		if (w->links[i].path)
			*link_place(table, capacity, w->links[i].dev, w->links[i].ino) = w->links[i];
	free(w->links);
	w->links = table;
	w->links_capacity = capacity;
	return 0;
}

/* The name under which this inode is in the archive already, or NULL: then this is it. */
static int link_find(
	struct tar_writer *w, const struct stat *st, const char *path, const char **first)
{
	*first = NULL;
	if (w->links_count * 2 >= w->links_capacity && links_grow(w) < 0)
		return -ENOMEM;
	struct link_seen *place = link_place(w->links, w->links_capacity, st->st_dev, st->st_ino);
	*first = place->path;
	if (place->path)
		return 0;
	*place = (struct link_seen){.dev = st->st_dev, .ino = st->st_ino, .path = strdup(path)};
	w->links_count += place->path != NULL;
	return place->path ? 0 : -ENOMEM;
}

/* --- entries --- */

static void add_attributes(struct archive_entry *entry, int fd)
{
	AUTO_BUF names = BUF_INIT;
	AUTO_BUF value = BUF_INIT;
	char *list = buf_reserve(&names, ATTRIBUTE_MAX);
	char *to = buf_reserve(&value, ATTRIBUTE_MAX);
	ssize_t n = list && to ? flistxattr(fd, list, ATTRIBUTE_MAX) : -1;
	for (ssize_t at = 0; at < n; at += (ssize_t)strlen(list + at) + 1) {
		if (strncmp(list + at, "user.", 5) != 0)
			continue;
		ssize_t size = fgetxattr(fd, list + at, to, ATTRIBUTE_MAX);
		if (size >= 0)
			archive_entry_xattr_add_entry(entry, list + at, to, (size_t)size);
	}
}

/* Where there is data, so that holes stay holes. */
static void add_holes(struct archive_entry *entry, int fd, const struct stat *st)
{
	if (!st->st_size || st->st_blocks * 512 >= st->st_size)
		return;
	off_t at = 0;
	bool some = false;
	while (at < st->st_size) {
		off_t data = lseek(fd, at, SEEK_DATA);
		if (data < 0)
			break;
		off_t end = lseek(fd, data, SEEK_HOLE);
		if (end < 0 || end > st->st_size)
			end = st->st_size;
		if (data >= end)
			break;
		archive_entry_sparse_add_entry(entry, data, end - data);
		some = true;
		at = end;
	}
	/* Nothing but a hole: an empty piece at its end says so. */
	if (!some)
		archive_entry_sparse_add_entry(entry, st->st_size, 0);
	(void)lseek(fd, 0, SEEK_SET); /* a regular file seeks */
}

static int write_header(struct tar_writer *w, struct archive_entry *entry, const char *path)
{
	int status = archive_write_header(w->archive, entry);
	if (status == ARCHIVE_FATAL)
		return archive_errno(w->archive) > 0 ? -archive_errno(w->archive) : -EIO;
	if (status == ARCHIVE_FAILED) {
		note(w, path, EIO, archive_error_string(w->archive));
		return 1;
	}
	return 0;
}

static struct archive_entry *entry_make(const char *path, const struct stat *st)
{
	struct archive_entry *entry = archive_entry_new();
	if (!entry)
		return NULL;
	archive_entry_copy_stat(entry, st);
	archive_entry_unset_atime(entry);
	archive_entry_unset_ctime(entry);
	archive_entry_unset_birthtime(entry);
	archive_entry_copy_pathname(entry, path);
	return entry;
}

static int put_link(
	struct tar_writer *w, int dir, const char *name, const char *path, const struct stat *st)
{
	AUTO_BUF target = BUF_INIT;
	size_t room = st->st_size > 0 ? (size_t)st->st_size + 1 : 4096;
	char *to = buf_reserve(&target, room);
	ssize_t n = to ? readlinkat(dir, name, to, room - 1) : -1;
	if (n < 0)
		return to ? -errno : -ENOMEM;
	to[n] = '\0';
	struct archive_entry *entry = entry_make(path, st);
	if (!entry)
		return -ENOMEM;
	archive_entry_copy_symlink(entry, to);
	archive_entry_set_size(entry, 0);
	int err = write_header(w, entry, path);
	archive_entry_free(entry);
	return err < 0 ? err : 0;
}

static int put_file(struct tar_writer *w, int dir, const char *name, const char *path)
{
	struct stat st;
	const char *first = NULL;
	/* Not blocking: what was a file a moment ago may be a FIFO now. */
	AUTO_FD int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -ENOENT;
	if (st.st_nlink > 1 && link_find(w, &st, path, &first) < 0)
		return -ENOMEM;
	struct archive_entry *entry = entry_make(path, &st);
	if (!entry)
		return -ENOMEM;
	if (first) {
		archive_entry_copy_hardlink(entry, first);
		archive_entry_unset_size(entry);
	} else {
		add_attributes(entry, fd);
		add_holes(entry, fd, &st);
	}
	int err = write_header(w, entry, path);
	archive_entry_free(entry);
	if (err || first)
		return err < 0 ? err : 0;
	w->off = w->data_end = 0;
	w->size = st.st_size;
	w->short_told = false;
	w->file = steal_fd(&fd);
	return 0;
}

static int put_other(struct tar_writer *w, const char *path, const struct stat *st)
{
	if (S_ISSOCK(st->st_mode))
		return 0; /* means nothing without its program */
	struct archive_entry *entry = entry_make(path, st);
	if (!entry)
		return -ENOMEM;
	archive_entry_set_size(entry, 0);
	int err = write_header(w, entry, path);
	archive_entry_free(entry);
	return err < 0 ? err : 0;
}

/* --- directories --- */

static int names_order(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Sorted, so that the same tree gives the same archive. */
static int names_sort(struct buf *names, size_t count)
{
	AUTO_FREE const char **list = calloc(count + 1, sizeof(char *));
	AUTO_BUF sorted = BUF_INIT;
	if (!list)
		return -ENOMEM;
	size_t i = 0;
	for (size_t at = 0; at < names->size; at += strlen(names->data + at) + 1)
		list[i++] = names->data + at;
	qsort(list, count, sizeof *list, names_order);
	for (i = 0; i < count; i++)
		buf_add(&sorted, list[i], strlen(list[i]) + 1);
	if (buf_error(&sorted) < 0)
		return -ENOMEM;
	struct buf old = *names;
	*names = sorted;
	sorted = old;
	return 0;
}

static int names_read(int fd, struct buf *names)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	if (!dir) {
		int err = -errno;
		if (copy >= 0)
			close(copy);
		return err;
	}
	size_t count = 0;
	errno = 0;
	for (struct dirent *d; (d = readdir(dir)); errno = 0) {
		if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
			continue;
		buf_add(names, d->d_name, strlen(d->d_name) + 1);
		count++;
	}
	int err = -errno;
	closedir(dir);
	if (!err)
		err = buf_error(names);
	return err < 0 || !count ? err : names_sort(names, count);
}

/* Tells of the directory fd (taken) and puts it on the stack. name: NULL: the top; path: as in the archive. */
static int put_directory(struct tar_writer *w, int given, const char *name, const char *path)
{
	AUTO_FD int fd = given;
	struct stat st;
	if (fstat(fd, &st) < 0)
		return -errno;
	struct archive_entry *entry = entry_make(path, &st);
	if (!entry)
		return -ENOMEM;
	archive_entry_set_size(entry, 0);
	add_attributes(entry, fd);
	int err = write_header(w, entry, path);
	archive_entry_free(entry);
	if (err)
		return err < 0 ? err : 0;
	if (w->depth == w->capacity) {
		size_t capacity = w->capacity ? w->capacity * 2 : 16;
		struct level *levels = realloc(w->levels, capacity * sizeof *levels);
		if (!levels)
			return -ENOMEM;
		w->levels = levels;
		w->capacity = capacity;
	}
	struct level *l = &w->levels[w->depth];
	*l = (struct level){.path_size = w->path.size};
	err = names_read(fd, &l->names);
	if (!err)
		err = chain_down(&w->chain, name, steal_fd(&fd));
	if (err < 0) {
		buf_release(&l->names);
		return err;
	}
	if (w->depth) {
		buf_clear(&w->path);
		buf_printf(&w->path, "%s/", path);
	}
	w->depth++;
	return buf_error(&w->path);
}

static void level_leave(struct tar_writer *w)
{
	struct level *l = &w->levels[--w->depth];
	chain_up(&w->chain);
	buf_release(&l->names);
	w->path.size = l->path_size;
	if (w->path.data)
		w->path.data[w->path.size] = '\0';
}

static int put(struct tar_writer *w, int dir, const char *name, const char *path)
{
	struct stat st;
	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (S_ISREG(st.st_mode))
		return put_file(w, dir, name, path);
	if (S_ISLNK(st.st_mode))
		return put_link(w, dir, name, path, &st);
	if (!S_ISDIR(st.st_mode))
		return put_other(w, path, &st);
	int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : put_directory(w, fd, name, path);
}

/* The next name of the walk. 1: go on, 0: that was the last. */
static int walk(struct tar_writer *w)
{
	struct level *l = &w->levels[w->depth - 1];
	if (l->at == l->names.size) {
		level_leave(w);
		return w->depth > 0;
	}
	const char *name = l->names.data + l->at;
	l->at += strlen(name) + 1;
	AUTO_BUF path = BUF_INIT;
	buf_printf(&path, "%s%s", w->path.size ? w->path.data : "", name);
	if (buf_error(&path) < 0)
		return -ENOMEM;
	if (is_excluded(w, path.data))
		return 1;
	int dir = chain_fd(&w->chain);
	if (dir == -ENOENT)
		l->at = l->names.size; /* moved away, with all that is left in it */
	int err = path.size > PATH_LONGEST ? -ENAMETOOLONG
			  : dir < 0                ? dir
									   : put(w, dir, name, path.data);
	/* What is gone is gone; what cannot be read is told, and the rest goes on. */
	if (err == -EACCES || err == -EPERM || err == -EIO || err == -ENXIO || err == -ENAMETOOLONG)
		note(w, path.data, -err, NULL);
	else if (err < 0 && err != -ENOENT && err != -ELOOP && err != -ENOTDIR)
		return err;
	return 1;
}

/* --- content --- */

static int write_data(struct tar_writer *w, const void *p, size_t n)
{
	while (n) {
		la_ssize_t done = archive_write_data(w->archive, p, n);
		if (done < 0)
			return archive_errno(w->archive) > 0 ? -archive_errno(w->archive) : -EIO;
		if (done == 0)
			break; /* beyond the size that was announced */
		p = (const char *)p + done;
		n -= (size_t)done;
		w->off += done;
	}
	return 0;
}

static int content(struct tar_writer *w)
{
	off_t left = w->size - w->off;
	if (left <= 0) {
		close(w->file);
		w->file = -1;
		return archive_write_finish_entry(w->archive) == ARCHIVE_FATAL ? -EIO : 1;
	}
	size_t want = left < PIECE ? (size_t)left : PIECE;
	/* libarchive wants holes as zeros, and leaves them out by the map it was given. */
	if (w->off >= w->data_end) {
		off_t data = lseek(w->file, w->off, SEEK_DATA);
		if (data > w->off || (data < 0 && errno == ENXIO)) {
			if (data > 0 && data - w->off < (off_t)want)
				want = (size_t)(data - w->off);
			int err = write_data(w, zeros, want);
			return err < 0 ? err : 1;
		}
		w->data_end = data < 0 ? w->size : lseek(w->file, w->off, SEEK_HOLE);
	}
	char *to = buf_reserve(&w->piece, PIECE);
	if (!to)
		return -ENOMEM;
	ssize_t n = pread(w->file, to, want, w->off);
	if (n < 0 && errno == EINTR)
		return 1;
	if (n <= 0) {
		/* The size is announced: the rest has to be something. */
		if (!w->short_told)
			note(w, w->path.size ? w->path.data : ".", n < 0 ? errno : EIO,
				n < 0 ? NULL : "a file in it became shorter while it was read: zeros follow");
		w->short_told = true;
		int err = write_data(w, zeros, want);
		return err < 0 ? err : 1;
	}
	int err = write_data(w, to, (size_t)n);
	return err < 0 ? err : 1;
}

/* --- the writer --- */

static la_ssize_t on_write(struct archive *a, void *arg, const void *p, size_t n)
{
	struct tar_writer *w = arg;
	if (w->out)
		buf_add(w->out, p, n);
	if (!w->out || buf_error(w->out) == 0)
		return (la_ssize_t)n;
	archive_set_error(a, ENOMEM, "out of memory");
	return -1;
}

void tar_writer_free(struct tar_writer *w)
{
	if (!w)
		return;
	if (w->archive)
		archive_write_free(w->archive);
	while (w->depth)
		level_leave(w);
	chain_release(&w->chain);
	free(w->levels);
	for (size_t i = 0; i < w->links_capacity; i++)
		free(w->links[i].path);
	free(w->links);
	if (w->file >= 0)
		close(w->file);
	if (w->root >= 0)
		close(w->root);
	tar_filter_release(&w->filter);
	buf_release(&w->path);
	buf_release(&w->piece);
	buf_release(&w->notes);
	free(w);
}

static int archive_make(struct tar_writer *w, enum tar_compression compression)
{
	struct archive *a = w->archive = archive_write_new();
	if (!a)
		return -ENOMEM;
	int status = archive_write_set_format_pax(a);
	if (compression == TAR_GZIP)
		status = archive_write_add_filter_gzip(a);
	else if (compression == TAR_ZSTD)
		status = archive_write_add_filter_zstd(a);
	else if (compression == TAR_LZ4)
		status = archive_write_add_filter_lz4(a);
	/* A warning means that a program would be run for it. */
	if (status != ARCHIVE_OK)
		return -ENOTSUP;
	archive_write_set_bytes_per_block(a, 64 << 10);
	archive_write_set_bytes_in_last_block(a, 1);
	return archive_write_open(a, w, NULL, on_write, NULL) == ARCHIVE_OK ? 0 : -ENOMEM;
}

int tar_writer_new(const char *dir, struct tar_filter *filter, enum tar_compression compression,
	struct tar_writer **out)
{
	struct tar_writer *w = calloc(1, sizeof *w);
	if (!w) {
		tar_filter_release(filter);
		return -ENOMEM;
	}
	w->filter = *filter;
	*filter = (struct tar_filter){NULL, NULL};
	while (w->filter.paths && w->filter.paths[w->paths_count])
		w->paths_count++;
	w->file = -1;
	w->root = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int err = w->root < 0 ? -errno : archive_make(w, compression);
	if (err < 0) {
		tar_writer_free(w);
		return err;
	}
	*out = w;
	return 0;
}

int tar_writer_next(struct tar_writer *w, struct buf *out)
{
	if (w->over)
		return 0;
	int more = 1;
	w->out = out;
	if (w->root >= 0) {
		int err = put_directory(w, steal_fd(&w->root), NULL, "./");
		more = err < 0 ? err : 1;
	}
	/* A piece of some size, however small the files are, but soon: holes and what compresses well give little. */
	for (size_t begin = out->size, i = 0; more == 1 && out->size - begin < PIECE && i < STEPS; i++)
		more = w->file >= 0 ? content(w) : walk(w);
	if (more == 0) {
		w->over = true;
		more = archive_write_close(w->archive) == ARCHIVE_OK ? 0 : -EIO;
	}
	w->out = NULL;
	return more;
}
