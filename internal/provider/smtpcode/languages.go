package smtpcode

// language says how replies in one language, or in a few similar ones, talk about a mailbox: the things at fault, and what is
// said about them. A dot stands for a letter that servers write in several ways.
type language struct {
	things      string // the mailbox, its address and its owner
	unknown     string // does not exist
	off         string // was switched off for good
	unavailable string // the words of RFC 5321 for 550
}

var languages = []language{
	{ // Spanish
		`usuario|destinatario|cuenta|buz.n|casilla|direcci.n|persona`,
		`desconocid|no (existe|es v.lid|est. registrad)|inexistente|no (fue |ha sido |se )?encontrad|inv.lid|no tiene (una )?cuenta`,
		`deshabilitad|desactivad|cancelad|suspendid|inactiv|eliminad|expirad|cerrad`, `no (est. )?disponible`,
	},
	{ // Portuguese
		`usu.rio|destinat.rio|caixa( postal)?|\bconta\b|endere.o`,
		`desconhecid|n.{1,2}o (existe|foi encontrad|encontrad|cadastrad|possui conta|tem conta)|inexistente|inv.lid`,
		`desativad|inativ|suspens|desabilitad|exclu.d|cancelad|expirad|encerrad`, `indispon.vel|n.{1,2}o (est. )?dispon.vel`,
	},
	{ // French
		`destinataire|utilisateur|adresse|compte|bo.{1,2}te`,
		`n'existe|inexistant|inconnu|introuvable|invalide|non (recens|trouv|reconnu|valide)|n'est (pas|plus) (valide|reconnu|connu|trouv)`,
		`d.sactiv|archiv|cl.tur|ferm.e?\b|supprim|suspendu|inacti`, `indisponible|pas disponible`,
	},
	{ // German
		`benutzer|nutzer|empf.{1,2}nger|postfach|konto|adresse|teilnehmer|mailbox|account`,
		`unbekannt|existiert nicht|nicht (gefunden|vorhanden|bekannt|g.ltig)|ung.{1,2}ltig|gibt es nicht`,
		`deaktiviert|gel.scht|stillgelegt|geschlossen|inaktiv|abgelaufen|gek.ndigt`, `nicht verf.{1,2}gbar`,
	},
	{ // Italian
		`utente|destinatario|indirizzo|casella|destin|account`,
		`sconosciut|inesistente|errato|non (esiste|trovat|valid|riconosciut|presente)`,
		`disabilitat|dis(at)?t?ivat|chius[oa]|cancellat|eliminat|scadut|sospes|non . attiv`, `non disponibile`,
	},
	{ // Dutch
		`gebruiker|ontvanger|geadresseerde|mailbox|adres|postbus|account`,
		`onbekend|bestaat niet|niet (gevonden|bekend|geldig)|ongeldig`,
		`uitgeschakeld|opgeheven|inactief|gedeactiveerd|verwijderd|gesloten`, `niet beschikbaar`,
	},
	{ // Polish
		`adres|odbiorc|u.ytkowni|konto|skrzynk`, `nieznan|nie (istnieje|znaleziono)|nie ma takie|nieprawid.ow|niepoprawn`,
		`nieaktywn|usuni.t|wy..czon|zamkni.t`, `niedost.pn`,
	},
	{ // Swedish, Norwegian, Danish
		`mottagar|anv.ndar|adress|postl.da|konto|bruker|mottaker|modtager|postboks|postkasse`,
		`finns (inte|ej)|hittades inte|saknas|ok.nd|fin(ne|de)s ikke|eksisterer ikke|ukjent|ukendt|ogiltig|ugyldig`,
		`inaktiver|deaktiver|avst.ngd|slettet|lukket|borttag`, `inte tillg.nglig|ikke tilgjengelig|ikke tilg.ngelig`,
	},
	{ // Finnish
		`k.ytt.j|vastaanottaj|osoit|postilaatik`, `tuntemato|ei (l.ydy|ole olemassa|l.ytynyt)|virheelli`, `poistettu|suljettu`, `ei ole k.ytett.viss`,
	},
	{ // Czech, Slovak
		`u.ivatel|adres|schr.nk|p..jemc|pr.jemc`, `neexistuje|nezn.m|neplatn|(nen.|neb.l.?) n.[aá]?lezen|nenalezen`, `zru.en|deaktivov|vypnut`, `nedostupn`,
	},
	{ // Hungarian
		`felhaszn.l|c.mzett|post[aá]fi.k`, `nem (l.tezik|tal.lhat|ismert|.rv.nyes)|ismeretlen|.rv.nytelen|nincs ilyen`, `letilt|t.r.lt|megsz.n|inakt.v`, `nem el.rhet`,
	},
	{ // Romanian
		`utilizator|adres|destinatar|contul|c.su.`, `nu (exist|a fost g.sit|este valid)|necunoscut|inexistent|nevalid`, `dezactivat|suspendat|.ters\b|inactiv`, `indisponibil`,
	},
	{ // Croatian, Serbian, Slovene
		`korisni|primatelj|primalac|prejemnik|uporabnik|adres|sandu.i|nabiralnik`, `ne (postoji|obstaja)|nepostoje|nepoznat|neznan|nije prona`, `deaktivir|onemogu.en|uga.en`, `nedostup`,
	},
	{ // Russian, Ukrainian, Bulgarian
		`пользовател|адрес|получател|ящик|аккаунт|користувач|скриньк|одержувач|отримувач|потребител`,
		`не (найден|существует|зарегистрирован|існує|знайдено|съществува|намерен)|неизвест|невідом|недействит|недійсн|\W*нет$`,
		`отключен|удал.н|закрыт|деактивир|неактив|вимкнен|видален`, `недоступ`,
	},
	{ // Turkish
		`kullan.c.|al.c.|adres|hesap|hesab|posta kutusu`, `bulunamad|mevcut de.il|bilinmiyor|ge.ersiz`, `devre d...|kapat.l|silin(di|mi)`, `kullan.lam`,
	},
	{ // Greek
		`χρήστ|παραλήπτ|διεύθυνσ|λογαριασμ`, `δεν (υπάρχει|βρέθηκε|είναι έγκυρ)|άγνωστ`, `απενεργοποι|διαγρα`, `μη διαθέσιμ`,
	},
	{ // Japanese
		`宛先|ユーザ|アドレス|メールボックス|受信者`, `存在しま?せ?ない|存在しません|登録されていません|見つかりません|不明|無効です`, `削除され|解約`, `利用できません`,
	},
	{ // Chinese
		`用户|用戶|收件人|邮箱|郵箱|帐号|账号|帳號|地址`, `不存在|找不到|无效|無效|未知|未\pL{0,5}(找到|开通|注册|註冊)`, `被禁用|停用|已注销|已註銷|已删除|已刪除`, `不可用`,
	},
	{ // Korean
		`사용자|수신자|주소|계정|메일함|편지함`, `존재하지 ?않|찾을 수 없|없는|유효하지 ?않`, `비활성|휴면|삭제|탈퇴`, `사용할 수 없`,
	},
	{ // Vietnamese
		`người dùng|người nhận|hộp thư|địa chỉ|tài khoản`, `không (tồn tại|tìm thấy|hợp lệ)`, `vô hiệu hóa|đã bị xóa`, `không khả dụng`,
	},
	{ // Indonesian, Malay
		`pengguna|penerima|kotak (surat|pos)|alamat|akun`, `tidak (ditemukan|dikenal|ada\b|valid|terdaftar|wujud)`, `dinonaktifkan|tidak aktif|dihapus`, `tidak tersedia`,
	},
	{ // Arabic
		`المستخدم|المستلم|العنوان|صندوق|الحساب`, `غير (موجود|معروف|صالح)|لا يوجد`, `معطل|محذوف`, `غير متاح`,
	},
	{ // Hebrew
		`משתמש|נמען|כתובת|תיבת`, `לא (קיים|קיימת|נמצא|נמצאה|מוכר)|אינו קיים|אינה קיימת`, `מושבת|נמחק`, `אינה זמינה`,
	},
}

// abroad returns the phrases in which the languages say something about their things, in either order.
func abroad(said func(language) string) phrases {
	var all phrases
	for _, l := range languages {
		all = append(all, oneOf(`(`+l.things+`)`+gap+`(`+said(l)+`)`, `(`+said(l)+`)\pL* (\pL+ )?(`+l.things+`)`)...)
	}
	return all
}

// thingsAbroad returns the things alone.
func thingsAbroad() phrases {
	var all phrases
	for _, l := range languages {
		all = append(all, oneOf(l.things)...)
	}
	return all
}
