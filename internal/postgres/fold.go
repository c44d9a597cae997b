package postgres

// foldedSQL is a recipient's address as mail.FoldAddress gives it. The column is null if the address is in that form already;
// then lower changes nothing, and the index is on this expression.
func foldedSQL(r string) string {
	return `coalesce(` + r + `.folded, lower(` + r + `.email COLLATE "C"))`
}

// senderSQL is the same for the sender of message m.
const senderSQL = `coalesce(m.sender_folded, lower(m.sender COLLATE "C"))`

// mailedSQL lists the messages of tenant $1 to a folded address. Most addresses are in folded form already and are found by
// the index of addresses; the others have an index of their own.
func mailedSQL(folded string) string {
	return `SELECT x.message_id FROM recipient x WHERE x.tenant_id = $1 AND x.email = ` + folded + `
    UNION ALL SELECT x.message_id FROM recipient x WHERE x.tenant_id = $1 AND ` + foldedSQL("x") + ` = ` + folded + `
        AND (x.folded IS NOT NULL OR x.email <> lower(x.email COLLATE "C"))`
}
