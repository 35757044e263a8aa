/*
 * POST /api/backup/create and /api/backup/restore: archives of directories in files of the sandbox, with the fields of the
 * official API. The archives are squashfs if their name ends in .sqsh and the sandbox has squashfs-tools, else tar; a restore replaces
 * the content of the directory, or leaves it as it is when the archive is broken. Owns nothing.
 */
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
#include "fileop_server.h"
#include "json_make.h"
#include "routes.h"
#include "squash.h"
#include "tar.h"
#include "text.h"

enum { SPACE_STEP = 4 << 20 };

/* False: *out is the answer. */
static bool backup_paths(
	struct request *r, char **dir, char **archive, const char *operation, enum MHD_Result *out)
{
	static const char *const members[] = {"dir", "archivePath"};
	char **const to[] = {dir, archive};
	for (size_t i = 0; i < 2; i++) {
		size_t n = 0;
		const char *s = json_text(r->json, members[i], &n);
		if (!s || *s != '/' || strlen(s) != n || strstr(s, "/../") || strlen(s) > 4096) {
			*out = reply_error(r, ERR_INVALID_BACKUP_CONFIG, NULL, operation,
				"%s must be an absolute path", members[i]);
			return false;
		}
		*to[i] = strdup(s);
		if (!*to[i]) {
			*out = reply_error(r, ERR_INTERNAL, NULL, operation, "out of memory");
			return false;
		}
	}
	return true;
}

/* excludes and compression of the body. NULL, or a sentence about what is wrong. */
static const char *backup_options(
	struct request *r, struct tar_filter *filter, enum tar_compression *compression)
{
	struct json_object *v;
	*compression = TAR_GZIP;
	if (json_object_object_get_ex(r->json, "excludes", &v) && v) {
		if (!json_object_is_type(v, json_type_array))
			return "excludes must be an array of strings";
		for (size_t i = 0; i < json_object_array_length(v); i++) {
			struct json_object *one = json_object_array_get_idx(v, i);
			if (!json_object_is_type(one, json_type_string))
				return "excludes must be an array of strings";
			const char *s = json_object_get_string(one);
			if (*s && tar_filter_glob(filter, s) < 0)
				return "too many excludes";
		}
	}
	if (json_object_object_get_ex(r->json, "compression", &v) && v) {
		const char *word =
			json_object_is_type(v, json_type_object) ? json_text(v, "format", NULL) : NULL;
		if (!word || strcmp(word, "none") == 0 || !tar_compression_find(word, compression))
			return "compression.format is gzip, zstd or lz4";
	}
	return NULL;
}

static int make_parents(const char *path)
{
	AUTO_FREE char *copy = strdup(path);
	if (!copy)
		return -ENOMEM;
	for (char *p = strchr(copy + 1, '/'); p; p = strchr(p + 1, '/')) {
		*p = '\0';
		if (mkdir(copy, 0755) < 0 && errno != EEXIST)
			return -errno;
		*p = '/';
	}
	return 0;
}

static int write_all(int fd, const char *p, size_t n)
{
	while (n) {
		ssize_t done = write(fd, p, n);
		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return -errno;
		p += done;
		n -= (size_t)done;
	}
	return 0;
}

/*
 * What is packed may grow as fast as it is read, and an archive without end with it: what is to stay free of the disk is the limit of
 * that, on the workspace's as for every other write.
 */
static int pour(struct server *server, struct tar_writer *w, int fd)
{
	int more = 1, err = 0;
	size_t unchecked = SPACE_STEP;
	struct stat st, workspace;
	bool guarded = fstat(fd, &st) == 0 && stat(server->workspace, &workspace) == 0 &&
				   st.st_dev == workspace.st_dev;
	while (more > 0 && !err) {
		AUTO_BUF piece = BUF_INIT;
		more = tar_writer_next(w, &piece);
		err = more < 0 ? more : buf_error(&piece);
		if (guarded && !err && unchecked >= SPACE_STEP) {
			err = fileop_server_check_space(server->files, SPACE_STEP);
			unchecked = 0;
		}
		unchecked += piece.size;
		if (!err && piece.size)
			err = write_all(fd, piece.data, piece.size);
	}
	int first = 0;
	(void)tar_writer_notes(
		w, &first); /* the words are for a person; here the errno stands for them */
	return err ? err : -first;
}

static int write_tar(struct server *server, const char *dir, struct tar_filter *filter,
	enum tar_compression compression, int fd)
{
	struct tar_writer *w = NULL;
	int err = tar_writer_new(dir, filter, compression, &w);
	if (!err)
		err = pour(server, w, fd);
	tar_writer_free(w);
	return err;
}

/* The archive appears whole or not at all. */
static int backup_write(struct server *server, const char *dir, const char *archive,
	struct tar_filter *filter, enum tar_compression compression, off_t *size, char **why)
{
	AUTO_FREE char *temporary = NULL;
	int err = make_parents(archive);
	if (!err && asprintf(&temporary, "%s.XXXXXX", archive) < 0) {
		temporary = NULL;
		err = -ENOMEM;
	}
	AUTO_FD int fd = err ? -1 : mkostemp(temporary, O_CLOEXEC);
	if (!err && fd < 0)
		err = -errno;
	struct stat st = {0};
	if (!err)
		err = squash_wanted(archive)
				  ? squash_create(server, dir, temporary, filter, compression, why)
				  : write_tar(server, dir, filter, compression, fd);
	if (!err && (fsync(fd) < 0 || fstat(fd, &st) < 0 || rename(temporary, archive) < 0))
		err = -errno;
	if (err < 0 && fd >= 0)
		unlink(temporary);
	if (!err)
		*size = st.st_size;
	return err;
}

static enum MHD_Result backup_failed(struct request *r, enum error_code code, const char *operation,
	const char *path, const char *why)
{
	return reply_error(r, code, path_context(path, operation), operation, "%s: %s", path, why);
}

enum MHD_Result route_backup_create(struct request *r)
{
	static const char operation[] = "backup.create";
	enum MHD_Result result;
	AUTO_FREE char *dir = NULL;
	AUTO_FREE char *archive = NULL;
	struct tar_filter filter = {NULL, NULL};
	enum tar_compression compression;
	struct stat st;
	off_t size = 0;
	AUTO_FREE char *why = NULL;
	if (!request_json(r, false, &result) || !backup_paths(r, &dir, &archive, operation, &result))
		return result;
	const char *wrong = backup_options(r, &filter, &compression);
	if (wrong || stat(dir, &st) < 0 || !S_ISDIR(st.st_mode)) {
		tar_filter_release(&filter);
		return wrong ? reply_error(r, ERR_INVALID_BACKUP_CONFIG, NULL, operation, "%s", wrong)
					 : backup_failed(r, ERR_BACKUP_CREATE_FAILED, operation, dir,
						   "the directory does not exist");
	}
	int err =
		json_flag(r->json, "gitignore", false) ? tar_filter_gitignore(r->server, dir, &filter) : 0;
	if (!err)
		err = backup_write(r->server, dir, archive, &filter, compression, &size, &why);
	tar_filter_release(&filter);
	if (err < 0)
		return backup_failed(
			r, ERR_BACKUP_CREATE_FAILED, operation, dir, why ? why : strerrordesc_np(-err));
	struct json_object *o = answer_new();
	json_add(o, "sizeBytes", json_object_new_int64(size));
	json_add(o, "archivePath", text_json_str(archive));
	return reply_json(r, 200, o);
}

enum MHD_Result route_backup_restore(struct request *r)
{
	static const char operation[] = "backup.restore";
	enum MHD_Result result;
	AUTO_FREE char *dir = NULL;
	AUTO_FREE char *archive = NULL;
	if (!request_json(r, false, &result) || !backup_paths(r, &dir, &archive, operation, &result))
		return result;
	AUTO_FD int fd = open(archive, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return backup_failed(r, ERR_BACKUP_RESTORE_FAILED, operation, archive,
			errno == ENOENT ? "the archive does not exist" : strerrordesc_np(errno));
	char magic[4];
	bool squash = pread(fd, magic, 4, 0) == 4 && memcmp(magic, "hsqs", 4) == 0;
	if (squash && !squash_can_unpack())
		return backup_failed(r, ERR_BACKUP_RESTORE_FAILED, operation, archive,
			"the archive is squashfs, and the sandbox has no unsquashfs");
	int err = make_parents(dir);
	if (!err && mkdir(dir, 0755) < 0 && errno != EEXIST)
		err = -errno;
	struct tar_result done = {0, 0, NULL, NULL};
	if (!err)
		err = squash ? squash_replace(r->server, archive, dir, &done)
					 : tar_replace(r->server, fd, dir, &done);
	if (err < 0) {
		result = backup_failed(r, ERR_BACKUP_RESTORE_FAILED, operation, dir,
			done.why ? done.why : strerrordesc_np(-err));
	} else {
		struct json_object *o = answer_new();
		json_add(o, "dir", text_json_str(dir));
		result = reply_json(r, 200, o);
	}
	tar_result_release(&done);
	return result;
}
