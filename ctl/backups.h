/*
 * backups/: what its room needs of the host's disk. See backups_store.c; the table is ctl_backups_dir (backups.c).
 */
#ifndef CTL_BACKUPS_H
#define CTL_BACKUPS_H

#include <stdint.h>
#include <time.h>

#include "buf.h"
#include "call.h"
#include "ctl.h"

struct backup_info {
	char *dir, *name;        /* name: NULL: none */
	struct timespec created; /* CLOCK_REALTIME */
	int64_t expires;         /* seconds since 1970; 0: never */
	uint64_t bytes;          /* of the archive */
};
void backup_info_release(struct backup_info *i);
#define AUTO_BACKUP_INFO __attribute__((cleanup(backup_info_release))) struct backup_info

/* 32 hexadecimal letters and nothing else? */
bool backup_id_ok(const char *id);
/* The directory of a sandbox's backups, made if need be (0700): 0 and *fd new, or an errno with a fault; make false: -ENOENT. */
int backup_store_open(struct sandbox *sb, struct call *c, bool make, int *fd);
/* 0 and *out, -ENOENT: there is none, or it has expired (and is removed). */
int backup_store_info(int store, const char *id, struct backup_info *out);
/* An archive to read: *fd new. */
int backup_store_read(int store, const char *id, int *fd);
/* A new archive, to be written to *fd (new): it is there under id once backup_store_commit returns 0. */
int backup_store_new(int store, char id[33], int *fd);
int backup_store_commit(int store, const char *id, int fd, const struct backup_info *info);
void backup_store_drop(int store, const char *id); /* of one that was not committed */
int backup_store_remove(int store, const char *id);
int backup_store_each(int store, bool (*cb)(const char *id, void *arg), void *arg);

extern const struct ctl_dir ctl_backups_dir;

#endif
