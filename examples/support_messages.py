"""A seeded data set: customer messages of an outdoor shop, and the JSON a tuned model answers.

A message states one of twenty intents and may name an order number and a product. The answer
is one line of compact JSON with the intent and both fields. The split is by sentence template:
no sentence of the validation or test split occurs in the training split in any form, so a
score on them measures unseen phrasings and not memory. Order numbers are split as well.

Run the file to see the counts and a few samples of each split.
"""

import json
import random
from dataclasses import dataclass
from typing import Final, Literal, get_args

Split = Literal["train", "validation", "test"]

# The place of each split's templates in an intent's list.
TEMPLATES: Final[dict[Split, slice]] = {
    "train": slice(0, 16),
    "validation": slice(16, 19),
    "test": slice(19, 22),
}

PRODUCTS: Final = (
    "headlamp",
    "tent",
    "sleeping bag",
    "rain jacket",
    "backpack",
    "camping stove",
    "water filter",
    "hammock",
    "dry bag",
    "thermos flask",
    "fleece vest",
    "climbing harness",
    "sleeping mat",
    "trekking pole",
    "camp chair",
    "down jacket",
)
# What comes in sizes, what is made of parts, what can stop working.
SIZED: Final = (
    "sleeping bag",
    "rain jacket",
    "backpack",
    "fleece vest",
    "climbing harness",
    "down jacket",
)
ASSEMBLED: Final = (
    "headlamp",
    "tent",
    "backpack",
    "camping stove",
    "water filter",
    "hammock",
    "thermos flask",
    "climbing harness",
    "trekking pole",
    "camp chair",
)
DURABLE: Final = (
    "headlamp",
    "tent",
    "rain jacket",
    "backpack",
    "camping stove",
    "water filter",
    "thermos flask",
    "sleeping mat",
    "trekking pole",
    "camp chair",
)

GREETINGS: Final = (
    "",
    "Hi!",
    "Hello.",
    "Hello there!",
    "Good morning.",
    "Good afternoon.",
    "Good evening.",
    "Hey!",
    "Hi team.",
    "Dear support team.",
)
CLOSINGS: Final = (
    "",
    "Thanks!",
    "Thank you very much.",
    "Many thanks, Anna.",
    "Best regards, Tom.",
    "Kind regards, Priya.",
    "Cheers, Ben.",
    "Thanks for your help.",
    "Please let me know.",
    "I look forward to your answer.",
)


@dataclass(frozen=True)
class Intent:
    """What a customer wants: 22 ways to say it, the first 16 for training."""

    name: str
    meaning: str
    templates: tuple[str, ...]
    products: tuple[str, ...] = PRODUCTS


@dataclass(frozen=True)
class Example:
    """A customer's message and the exact answer to it."""

    message: str
    answer: str


def _intent(
    name: str, meaning: str, templates: str, products: tuple[str, ...] = PRODUCTS
) -> Intent:
    return Intent(name, meaning, tuple(templates.strip().splitlines()), products)


INTENTS: Final = (
    _intent(
        "refund_request",
        "wants money back for returned goods",
        """
I sent back the {product} from order {order} and would like a refund to my card.
Please refund order {order}, I returned everything in the original box last week.
The {product} is not for me, so I want to return it and get my money back.
How do I ask for a refund on something I returned two weeks ago?
You have had my returned {product} for ten days, when will I get the refund for {order}?
I am not happy with order {order} and want my money back, please.
Can I still return the {product} unused and have the full price refunded?
My return reached your warehouse on Monday but no refund has arrived at my bank.
Please pay me back for the {product}, order number {order}, which I returned unopened.
I would like my money returned for order {order} because I changed my mind.
I returned the {product} within 30 days, so please reimburse the purchase price.
What do I have to do to get my money back after returning goods?
Order {order}: the {product} went back to you by post, please start the refund.
Kindly reimburse me for order {order}, the return was confirmed by your warehouse.
I no longer need the {product} and want to give it back for a refund.
I am asking for a full refund of the {product} I bought under number {order}.
Since I returned the {product}, I expect my money back for order {order} soon.
When will the refund for order {order} be paid to my bank?
I want to give my purchase back and be reimbursed the full price.
The {product} from {order} is already back at your warehouse, so please reimburse me.
I would like to return the {product} unopened and get a refund, is that possible?
My goods went back by post last week, please pay the money back to my card.
""",
    ),
    _intent(
        "track_order",
        "asks where a parcel is",
        """
Where is my order {order} right now and has the {product} been shipped yet?
Could you send me the tracking number for order {order} so I can follow the parcel?
I would like to track the {product} I ordered, but I have no tracking link.
How can I see where my parcel is at the moment and which courier has it?
Please tell me the shipping status of the {product} in order {order}.
What is the current status of order {order}, is it already on its way?
Has the {product} left your warehouse, and where can I follow the shipment?
The tracking link in the shipping mail does not open, where is my parcel?
I want to follow my {product}, can you give me a tracking code for {order}?
Can you check which courier carries order {order} and where the parcel is today?
Where can I find tracking information for the {product} I bought on Sunday?
I just want to know where my shipment is now and how to track it.
Order {order} with the {product} was shipped, could I have the link to track it?
Please give me an update on the status of order {order}, I cannot see where it is.
Is the {product} already with the courier, and can I see its current location?
My account shows order {order} as shipped, but where is the {product} at the moment?
Could you check the current location of the {product} from order {order} for me?
Please send me a link so that I can follow order {order} on its way.
Which courier has my parcel now, and what is the tracking code for it?
I need the tracking code to see where the {product} in shipment {order} is.
Can you tell me whether order {order} has been shipped and where it is today?
I would like to follow my parcel, where do I find the tracking link?
""",
    ),
    _intent(
        "cancel_order",
        "wants to stop an order before it ships",
        """
Please cancel order {order} for the {product} before it is shipped.
I need to cancel my order {order}, I placed it by mistake this morning.
I ordered the {product} by accident an hour ago, can you cancel it?
Is it still possible to cancel an order that I placed last night?
Stop order {order} please, I do not want the {product} any more.
Can you cancel order {order} before it leaves the warehouse, please?
I changed my mind about the {product}, please cancel the order before you pack it.
I clicked buy by mistake and want to cancel the whole order immediately.
Cancel the {product} in order {order} please, I found my old one at home.
Please do not ship order {order}, I would like it cancelled today.
How do I cancel the {product} that I ordered a few minutes ago?
The cancel button on your site is grey, please call off my order right away.
I want order {order} cancelled because I accidentally put the {product} in the basket.
Order {order} is no longer needed, please cancel it before packing starts.
Please call off my order of the {product}, our trip is not happening.
My son ordered the {product} by accident, so please stop and cancel {order}.
I placed order {order} for the {product} by mistake, please cancel it today.
Could you stop order {order} before it gets packed and shipped?
I ordered something by accident this morning and would like to cancel.
Please call off order {order}, I no longer want the {product} and it is not shipped yet.
Can the order for the {product} still be cancelled before you ship it?
I accidentally placed an order a few minutes ago, please cancel it immediately.
""",
    ),
    _intent(
        "change_address",
        "wants delivery to another address",
        """
I have moved, please change the delivery address of order {order} with the {product}.
Please send order {order} to my new address instead of the old one.
Can the {product} be delivered to my office instead of my home address?
How do I change the delivery address in my customer profile after moving house?
The street number on order {order} is wrong, please correct the address for the {product}.
I typed the wrong postcode for order {order}, can you correct the address?
Please ship the {product} to my neighbour's address, I will be away that week.
We are moving to another street next month, where can I update our address?
Order {order} should go to a different address, please redirect the {product} to my work.
Could you update the shipping address of order {order} to my parents' house?
I ordered the {product} with my old address, please use the new one.
My saved delivery address still shows the old street and town, please update it.
The {product} in {order} must go to my new flat, the old address is no longer valid.
There is a typo in the street name of order {order}, please change it.
I need the {product} sent to a different town, can I still change the address?
Please deliver the {product} from order {order} to my office, the house address is outdated.
I moved last week, so the {product} in order {order} should go to a new address.
The postcode of order {order} has a typo, please correct the delivery address.
Where can I change the old street and town saved in my profile?
Please redirect order {order} with the {product} to my new flat, I have moved.
Could you deliver the {product} to a different street, my old address is wrong?
I need to update the address saved in my profile because we moved house.
""",
    ),
    _intent(
        "damaged_item",
        "goods arrived broken or damaged",
        """
The {product} from order {order} arrived broken, the box was crushed on one side.
Everything in order {order} was damaged in transport, I can send photos.
My {product} came with visible damage, it must have been dropped in the post.
The parcel was crushed and wet when it arrived, and the contents are damaged.
I unpacked the {product} today and it is broken, my order number is {order}.
Order {order} arrived with a dent and deep scratches, what should I do now?
The {product} was already scratched and damaged when I opened the box.
My delivery arrived in pieces because the packaging was ripped open in transport.
Order {order} arrived today, but the {product} is badly scratched and clearly damaged.
The courier must have dropped order {order}, the contents are broken and cracked.
When I opened the parcel I found the {product} broken and in pieces.
I received a cracked and broken item today, the packaging was dented and ripped.
The {product} in {order} was not packed well and got damaged on the way.
I have photos of the damage to order {order}, the box arrived ripped.
Sadly the new {product} was damaged right out of the box, the packaging was dented.
The packaging of order {order} was torn and the {product} has deep scratches.
The box of order {order} was ripped and the {product} inside is broken.
Order {order} arrived crushed, I can send you photos of the damage.
My parcel arrived today and the item inside is cracked and scratched.
I opened the box of order {order} and found the {product} damaged and dented.
The new {product} arrived scratched, it must have been damaged in transport.
The packaging was crushed and the contents are broken, I took photos today.
""",
    ),
    _intent(
        "wrong_item",
        "received another article than ordered",
        """
I ordered the {product} in order {order} but you sent me something completely different.
Order {order} contains the wrong article, it is not what I ordered.
Instead of the {product} I received a different article, there must be a mix-up.
You sent me the wrong item, this belongs to another customer.
Order {order} came today with a red {product}, but I ordered the blue one.
There was a mix-up with order {order}, I got somebody else's article.
I received the wrong model of the {product}, it is not the one I chose.
What I found in the parcel is not what I ordered, you packed a different item.
Wrong item in order {order}: I got a different model instead of the {product}.
I think you mixed up two parcels, order {order} has the wrong contents.
The {product} you sent is the wrong colour, I ordered green and received grey.
I received an item that I never ordered, it seems you mixed up two customers.
My parcel {order} should contain the {product}, but another article was inside.
You delivered a completely different article for order {order} than the one I chose.
I never ordered this {product}, you must have sent me the wrong thing.
The {product} I got in {order} is a different model and colour from the one I ordered.
Order {order} has the wrong contents, I received another article instead of the {product}.
The {product} I received is not in the colour that I ordered.
You mixed up the parcels and sent me something I never ordered.
You sent the wrong model in order {order}, I chose a different {product}.
I got the wrong article in order {order}, this is not what I ordered.
There was a different item inside my parcel, it belongs to somebody else.
""",
    ),
    _intent(
        "missing_part",
        "a part or accessory was not in the box",
        """
The {product} from order {order} is missing a strap, please send me the part.
Order {order} is incomplete, the small bag with the screws is missing.
There was no manual in the box with my {product}, and a screw is missing too.
The set I bought is incomplete, two small parts were not in the box.
I cannot put the {product} together, a part is missing from order {order}.
One accessory is missing from order {order}, could you send it separately?
My {product} came without the cap, please send the missing piece.
The box was complete except for one buckle, can you post the missing part?
The accessory bag for the {product} was not in the box of order {order}.
I counted the parts in order {order} and two pieces are missing.
The {product} was delivered without its strap and instructions, it is incomplete.
The manual lists six screws, but only four were in the box, two are missing.
Order {order}: the {product} came without a manual and without the buckle.
A small piece is missing in {order}, so I cannot put everything together.
Please send me the missing cap for my {product}, it was not in the box.
The {product} in order {order} is not complete, the part listed in the manual is missing.
I found no screws in the box of the {product}, order {order} is incomplete.
A strap is missing from my {product}, please send it separately.
Two parts listed in the manual were not in the box, please post them.
The buckle for the {product} in order {order} is missing, can you send this part?
Order {order} came without the accessory bag and the instructions, so it is incomplete.
I cannot put it together because one screw and a small piece are missing.
""",
        ASSEMBLED,
    ),
    _intent(
        "exchange_size",
        "wants to swap for another size",
        """
The {product} from order {order} is too small, I would like to exchange it for a larger size.
Can I swap the size in order {order}, medium is too tight for me?
My {product} is too big, please exchange it for a size smaller.
What I bought does not fit, how can I exchange it for another size?
I need the {product} from {order} one size larger, can you swap it?
Please exchange order {order}, I took size 42 and need size 44.
The {product} does not fit me, large is too loose and I need medium.
It is too tight around the shoulders, so I want to swap it for a bigger size.
Order {order}: please swap the {product} from small to medium, it is too tight.
I took size 38 in order {order}, can I have the next size up?
I would like to exchange the {product} for a smaller size, it is too loose.
Do you swap sizes for free if the first one is too small?
The {product} in order {order} is too loose, I would like a smaller one in exchange.
Size large from order {order} is too big for my wife, she needs a small.
Can I exchange my {product} for extra large, this one is too short and tight?
I want to exchange the {product} bought with order {order}, the fit is too narrow.
The {product} from {order} is too tight, please swap it for a bigger size.
Can I exchange order {order} from large to medium, it does not fit?
The size I took is too small, so I need the next size up.
I need a smaller size of the {product} from order {order}, this one is too loose.
My {product} is too small for me, can I swap it for a large?
What I bought in {order} does not fit, so I need one size bigger.
""",
        SIZED,
    ),
    _intent(
        "invoice_copy",
        "needs an invoice or receipt",
        """
Please send me a copy of the invoice for order {order} with the {product}.
I need the invoice for order {order} as a PDF for my accounting.
I lost the receipt for my {product}, can you mail me a copy?
Where can I download the invoices of my purchases from last year?
Could I get an invoice with VAT for the {product}, order number {order}?
The invoice of order {order} was not in my mail, please send it again.
My tax adviser needs a receipt for the {product}, could you send a PDF?
I need an invoice made out to my company for the tax office.
Please issue the bill for {order} to my company, I bought the {product} for work.
Can you email a copy of the receipt for order {order} to our accounting?
I need a bill with VAT for the {product} I paid for in May.
There is no PDF invoice in my account, please email me a copy.
For my taxes I need the receipt of order {order}, which was for the {product}.
Our bookkeeping asks for the invoice of order {order} with the VAT number on it.
How do I download the invoice for my {product} as a PDF?
Please email me the bill for the {product} in order {order}, I lost my copy.
Can I have the invoice for order {order} and the {product} as a PDF?
I need a receipt with VAT for order {order}, please email it to me.
Our accounting lost the bill, could you send us a copy again?
My tax office asks for the bill of order {order}, I bought the {product} for my company.
Could you email me the receipt for order {order}, I cannot download the PDF?
Please send a copy of my invoice with the VAT number to our bookkeeping.
""",
    ),
    _intent(
        "payment_failed",
        "a payment was declined at checkout",
        """
My card was declined when I tried to pay for the {product}, order {order}.
The payment for order {order} failed with an error, how can I pay again?
I want to buy the {product} but the checkout rejects my card every time.
Your checkout shows a payment error, although my card works in other shops.
Order {order} says payment failed, but I still want the {product}, how can I pay?
I tried to pay order {order} by PayPal and the payment was declined.
The payment page freezes when I try to pay for the {product} with my card.
My credit card is rejected at checkout and I cannot complete the payment.
Payment for the {product} in {order} did not go through, please send a new payment link.
Order {order} is unpaid because the bank transfer was rejected, can I try again?
I get an error message after entering my card details to pay for the {product}.
The payment did not go through three times, is there a problem with your checkout?
I cannot pay for order {order}, the {product} stays in my basket and the card fails.
The status of order {order} is payment declined, may I use another card?
PayPal fails at checkout whenever I try to buy the {product}, please help.
Please let me pay order {order} for the {product} another way, my credit card was rejected.
My payment for the {product} failed, order {order} shows that the card was declined.
I cannot pay order {order}, the checkout shows an error after my card details.
My PayPal payment does not go through at checkout, can I try another way?
The checkout rejected my card for order {order}, how can I still pay for the {product}?
Whenever I try to pay for order {order} the card fails with an error message.
My card was declined three times although it works in other shops, please help.
""",
    ),
    _intent(
        "double_charge",
        "was charged twice",
        """
You have charged my card twice for the {product} in order {order}.
Order {order} was debited two times from my account, please correct the double charge.
I bought one {product} but my bank statement shows two charges of the same amount.
The same amount of 89 euros was taken twice from my credit card, please check.
My statement has a double debit for order {order}, I only bought one {product}.
I was charged twice for order {order}, please reverse the second charge.
Two payments were taken for a single {product}, one of them is a mistake.
My bank shows a duplicate charge from your shop on the same day.
The amount for the {product} was debited twice under order {order}, please reverse one.
Why do I see two debits for order {order} on my bank statement?
I paid for the {product} once, but you took the money two times.
Your shop has charged me double this month, I can send the bank statement.
For order {order} you took the price of the {product} twice from my card.
There is a duplicate payment for order {order}, please reverse the extra amount.
My credit card was debited double for one {product}, please check the second booking.
I see the {product} from {order} as two identical charges, one is a duplicate.
The price of the {product} in order {order} was charged double on my card.
Order {order} appears twice on my bank statement, please reverse the second debit.
You took the same amount from my account two times, one is a duplicate.
My bank statement shows a duplicate debit for the {product} from order {order}.
I was charged two times for one {product}, please reverse the extra payment.
Why did you take the same amount twice from my credit card this month?
""",
    ),
    _intent(
        "discount_code",
        "question about a voucher or promo code",
        """
I forgot to enter my discount code for the {product} in order {order}, can you apply it?
The voucher was not applied to order {order}, I paid the full price.
My promo code does not work for the {product}, it says the code is invalid.
I received a coupon for ten percent off, but the basket does not accept it.
The ten percent voucher was not deducted from the {product} in order {order}.
Could you add my coupon to order {order} afterwards, I forgot the code?
Is there a discount code that I can use for the {product} this week?
My welcome voucher has expired, can I get a new promo code?
I paid full price for the {product}, please apply the promo code to {order}.
Why was my discount not deducted from order {order}, the code was still valid?
The coupon code for the {product} is shown as expired, but it should be valid until Friday.
Where do I enter a voucher code in the basket, I cannot find the field?
Order {order} was placed without my coupon, can I still get the discount on the {product}?
The discount code was accepted, but order {order} shows no percent off.
Your site says my voucher is invalid when I add the {product} to the basket.
I had a promo code for 20 percent off the {product}, but {order} shows no discount.
My coupon for the {product} was not deducted, please apply the discount to order {order}.
The promo code is shown as invalid when I put the {product} in the basket.
I cannot enter my voucher code, it says that it has expired.
I forgot to use my voucher for order {order}, can I still get a discount on the {product}?
The basket does not accept the coupon code for the {product}, although it is valid.
Can I get a new discount code, my ten percent promo has expired?
""",
    ),
    _intent(
        "account_login",
        "cannot log in or needs a new password",
        """
I cannot log in to check order {order} with the {product}, my password is rejected.
I forgot my password and cannot log in to see order {order}.
I wanted to review the {product}, but I cannot sign in to my account.
The password reset mail never arrives, so I am locked out of my account.
My login stopped working after I bought the {product}, order {order}, please reset it.
To view order {order} I have to log in, but my account is locked.
I put the {product} on my wish list and now my login does not work.
Your site says my username or password is wrong, how do I reset it?
I am locked out and cannot see order {order} for the {product}, please unlock my login.
The login page rejects my email, I need to get into order {order}.
I cannot sign in to rate the {product}, please send me a new password.
My account has been locked after too many login attempts, please unlock it.
Please send a password reset link, I need to see the {product} in order {order}.
Since yesterday I cannot sign in, so order {order} is not visible to me.
I tried to log in to buy the {product}, but the reset link does not work.
My username is not recognised, so I cannot open order {order} for the {product}.
My account is locked and I cannot sign in to see the {product} in order {order}.
I need order {order} but forgot my username and password, how can I log in again?
The reset link for my login does not work, please send a new password.
I need to see order {order} for the {product}, but my login is rejected, please unlock it.
I wanted to buy the {product}, but I forgot my password and cannot sign in.
My account is locked, please send me a link to reset the password.
""",
    ),
    _intent(
        "delete_account",
        "wants account and personal data erased",
        """
After order {order} with the {product} I want you to delete my account and my data.
Please close my customer account, order {order} was my last one.
I only registered to buy the {product}, please delete my account again.
I want to delete my customer account and all personal data stored with you.
Please erase my personal data, also the record of the {product} in order {order}.
Once order {order} is done, close my profile and erase all stored data.
I bought the {product} years ago and no longer need a profile, please delete it.
Under data protection law I ask you to erase everything you have stored about me.
Delete my profile please, I have kept the {product} and order {order} is finished.
I request the deletion of all my data, my only order was {order}.
The {product} will be my last purchase, please remove my account and personal details.
How can I permanently close my account, I cannot find a delete button?
My purchase of the {product}, order {order}, is finished, now remove my data permanently.
I do not want to be a customer any more, please delete the account with order {order}.
The {product} was my only purchase here, so please close the account permanently.
As a former customer with order {order} for the {product} I request deletion of my profile.
Please remove all personal data linked to order {order} and the {product}.
The {product} was my last purchase, I want my profile erased permanently.
I request that you delete everything that is stored about me.
Order {order} for the {product} was my last, please delete my profile and personal details.
I no longer need a customer account, please close it and erase order {order} from your data.
How do I ask for the permanent deletion of my account and stored data?
""",
    ),
    _intent(
        "newsletter_stop",
        "wants no more marketing mail",
        """
Since order {order} for the {product} I get your newsletter daily, please unsubscribe me.
Please unsubscribe me from the newsletter, I was added after order {order}.
I bought the {product} and now you send me advertising every day, please stop.
The unsubscribe link in your newsletter does not work, take me off the list.
Please stop the marketing emails about the {product}, I already have it from order {order}.
I only placed order {order}, I never signed up for advertising emails.
I want no more newsletters with offers for the {product}, remove me from the mailing list.
Your weekly newsletter keeps coming although I clicked unsubscribe, please stop it.
Take me off your mailing list, order {order} for the {product} was a single purchase.
Since I placed order {order} my inbox is full of your marketing, please end this.
Every week you email me offers for the {product}, please take me off this list.
I no longer want to receive any advertising or promotional emails from you.
I never agreed to marketing emails when I bought the {product} with order {order}.
Please remove the email used for order {order} from your newsletter list.
How do I unsubscribe from the daily mails with offers for the {product}?
Stop sending advertising after order {order}, I am not interested in a second {product}.
After buying the {product} in order {order} I get daily advertising, please unsubscribe me.
My email from order {order} is still on your mailing list, please take it off.
I am not interested in your weekly offers, please stop the newsletter.
I placed order {order} for the {product} and never agreed to a newsletter, please end it.
Please stop the daily marketing emails about the {product}, I do not want them.
I already clicked unsubscribe, but your advertising emails keep coming every week.
""",
    ),
    _intent(
        "warranty_claim",
        "goods failed after months of use",
        """
The {product} from order {order} stopped working after eight months, is it under warranty?
I want to make a warranty claim for order {order}, bought last year.
My {product} failed after one season of normal use, please repair it under guarantee.
How long is your warranty and how do I make a claim for a defect?
The {product} has a defect after six months, I would like a warranty repair for {order}.
Order {order} is a year old and now defective, does the guarantee cover that?
Does the warranty cover my {product}, it came apart after a year?
The article I bought last summer no longer works, I want to use the guarantee.
Please open a guarantee claim, the {product} bought with order {order} failed after ten months.
After only one season the article from order {order} is defective, please repair it.
My {product} is one year old and no longer works, is this a guarantee case?
Where do I send a defective article for repair within the two year warranty?
I used the {product} from {order} for one year, now it fails and I claim the guarantee.
Order {order} has a material defect that appeared after months of use, is it under warranty?
Can you repair my {product}, it stopped working last month and is still under guarantee?
A defect appeared on the {product} after five months, please open a claim for order {order}.
My {product} from order {order} no longer works after nine months, I claim the warranty.
Does the guarantee cover a material defect after a year, my order was {order}?
The article stopped working after one season, can you repair it under warranty?
After months of normal use the {product} is defective, please open a claim for order {order}.
My {product} stopped working after a year, does the warranty cover a repair?
I want to send in an article with a material defect, it is still under guarantee.
""",
        DURABLE,
    ),
    _intent(
        "product_advice",
        "asks which gear suits a purpose",
        """
Is the {product} in my order {order} suitable for a winter trip in the mountains?
Which gear would you recommend to go with what I bought in order {order}?
Can you recommend a {product} for a beginner who hikes in rainy weather?
I need advice on good gear for a week of hiking in the mountains.
I like the {product} from order {order}, which model do you recommend for my daughter?
I was happy with order {order}, what gear would you recommend for a winter hike?
Which {product} is the best choice for a family with two small children?
What should a beginner bring on a first winter camping trip, what do you recommend?
Would you advise a lighter {product} than the one in {order} for long hikes?
Does what I chose in order {order} suit a beginner, or is there a better model?
Is your {product} warm and light enough for hiking in the snow?
Which gear is better for a summer trip by bicycle, light or robust?
Can I use the {product} from order {order} in heavy rain, or which one is better?
Please advise me which gear goes well with order {order} for a trip to Norway.
What is the difference between your two {product} models, and which one is lighter?
Before you ship {order}, is the {product} a good choice for cold weather?
Which {product} would be better for cold weather than the one in order {order}?
Is the {product} suitable for beginners, or would you recommend a different model?
Please give me advice on light gear for a long summer hike.
Is the {product} from order {order} a good choice for hiking in heavy rain?
Can you advise me which {product} is best for a winter trip?
What gear do you recommend to a beginner for a first hike in the mountains?
""",
    ),
    _intent(
        "store_hours",
        "asks when the store is open",
        """
What are the opening hours of your store, I want to bring the {product} from order {order}?
Until what time is the store open today, I want to collect order {order}?
Is your shop in town open on Saturday, I would like to see the {product}?
What time does your store open in the morning and when does it close?
I would like to collect the {product}, order {order}, are you open on Sunday?
Are you open on the public holiday, I would pick up order {order} then?
I want to try the {product} in your store, when do you close on weekdays?
Are your store opening hours different on Sundays and on public holidays?
When does the shop open tomorrow, I will pick up the {product} from {order}?
How late is the counter open for picking up order {order} in the evening?
Do you have a store in town where I can look at the {product}, and when is it open?
Is the shop open at lunch time or do you close at noon?
Is the store closed on Saturday evening, I want to visit about the {product} in {order}?
I will come by about order {order}, what are your opening hours on Friday?
Which days is the store open, I would like to try out the {product} there?
Is your shop closed on Monday, I planned to collect the {product} of order {order}?
When does the store close this evening, I will collect the {product} from order {order}?
Is the shop open on Sunday so that I can look at the {product}?
Please tell me your opening hours on weekdays and on Saturday.
How late are you open on Friday, I would pick up the {product} from order {order}?
I want to visit your store to collect order {order}, what are the hours on Saturday?
Is your shop in town closed on the public holiday or open as usual?
""",
    ),
    _intent(
        "delivery_delay",
        "complains that a delivery is late",
        """
Order {order} is late, the {product} should have arrived a week ago.
I have been waiting three weeks for order {order}, why does it take so long?
The {product} was promised for last Friday and still has not come.
My delivery is overdue by ten days and nobody explains the delay.
You promised the {product} in two days, but order {order} is now very late.
Why is order {order} delayed again, the promised date has passed?
I am still waiting for the {product}, the delivery date passed days ago.
How much longer do I have to wait, the delivery is already two weeks late?
The {product} from order {order} is overdue, what is the reason for the delay?
Order {order} should have been here on Tuesday, I am still waiting.
Our trip starts tomorrow and the {product} has still not arrived, it is far too late.
The promised delivery date has passed and nothing has arrived, why the delay?
I am annoyed that {order} is so late, I have waited a month for the {product}.
The delivery of order {order} keeps being postponed, when will it finally arrive?
Why has the delivery of my {product} been postponed again, I waited long enough?
Delay with order {order}: the {product} was due last week and has not come.
I have been waiting for the {product} for a month, why is order {order} delayed?
Order {order} was promised for Monday and is still not here, it is late.
The delivery was due ten days ago, how much longer do I have to wait?
The promised date for order {order} has passed, and I am still waiting for the {product}.
Why is the delivery of order {order} so late, it was due last week?
My delivery is overdue, what is the reason that it has been delayed so long?
""",
    ),
    _intent(
        "gift_wrap",
        "wants goods wrapped as a present",
        """
Please wrap the {product} in order {order} as a gift, it is a birthday present.
Can you add gift wrapping to order {order}, it is for a birthday?
Do you offer gift wrap for the {product}, it is a present for my father?
How much does gift wrapping cost, and can I add a greeting card?
Order {order} is a present, could you put the {product} in nice paper with a ribbon?
I forgot to choose gift wrap for order {order}, please add a ribbon and a card.
I want to give the {product} as a present, can it come in a gift box?
Is it possible to have a present wrapped in Christmas paper with a message?
Please put a greeting card with the {product}, {order} is a wedding gift.
Please pack order {order} in gift paper and leave the price out of the box.
Can the {product} be wrapped for Christmas with a personal message on a card?
Do you have wrapping paper for children, I am buying a birthday gift?
I would like the {product} from order {order} gift wrapped with a red ribbon.
Order {order} is a surprise for my wife, please wrap it as a present.
My friend gets the {product} as a wedding present, please wrap it nicely.
Please include a birthday card and nice wrapping for the {product} in {order}.
The {product} in order {order} is for Christmas, please add gift paper and a ribbon.
Could you wrap order {order} as a birthday present with a personal card?
Do you offer a gift box with a greeting card, and what does it cost?
I would like a ribbon and a greeting card with the {product}, {order} is a birthday gift.
Can order {order} come wrapped in nice paper, it is a present for my father?
How much is gift wrap with a personal message for a wedding?
""",
    ),
)

SHORT_PROMPT: Final = "Return the ticket as JSON."

_FULL_PROMPT = """\
You sort the support messages of an outdoor equipment shop. Read the customer's message and \
answer with one line of compact JSON, without spaces or line breaks between the parts:
{"intent":"...","order":"...","product":"..."}
Use exactly these three keys in this order.

"intent" is what the customer wants, exactly one of:
<INTENTS>

"order" is the order number: the five digits copied from the message as a string, without "#" \
or other words. Sizes, prices, percentages and numbers of days are not order numbers. Use null \
if the message has no order number.
"product" is the product named in the message, in lower case, exactly one of: <PRODUCTS>. Use \
null if the message names none of them.
Never guess a value that is not in the message.

Message: Hi! The zip of the tent in order 48213 was ripped when I unpacked it. Thanks!
Answer: {"intent":"damaged_item","order":"48213","product":"tent"}

Message: Hello. Can I drop in on Saturday, or is the shop closed?
Answer: {"intent":"store_hours","order":null,"product":null}

Write the JSON and no other text.\
"""

LONG_PROMPT: Final = _FULL_PROMPT.replace(
    "<INTENTS>", "\n".join(f"- {intent.name}: {intent.meaning}" for intent in INTENTS)
).replace("<PRODUCTS>", ", ".join(PRODUCTS))


# Which split an order number belongs to, by its remainder.
_OWNERS: Final[tuple[Split, ...]] = ("test", "validation", *("train",) * 5)


def _order(rng: random.Random, split: Split) -> str:
    """Give a five-digit order number of the split's own: no split shares one with another."""
    while True:
        number = rng.randrange(10_000, 100_000)
        if _OWNERS[number % len(_OWNERS)] == split:
            return str(number)


def _example(intent: Intent, template: str, split: Split, rng: random.Random) -> Example:
    order = _order(rng, split) if "{order}" in template else None
    product = rng.choice(intent.products) if "{product}" in template else None
    core = template.format(order=order, product=product)
    parts = (rng.choice(GREETINGS), core, rng.choice(CLOSINGS))
    fields = {"intent": intent.name, "order": order, "product": product}
    return Example(
        message=" ".join(part for part in parts if part),
        answer=json.dumps(fields, separators=(",", ":")),
    )


def make(split: Split, count: int, seed: int = 7) -> list[Example]:
    """Make `count` examples of a split, evenly over intents and then over their templates.

    The same arguments give the same list, and a smaller count gives its beginning. 320 examples
    of the training split use each of its templates once. Messages within the list differ, as
    long as a template has a greeting and a closing left to vary (100 pairs).
    """
    rng = random.Random(f"{split}-{seed}")
    examples: list[Example] = []
    seen: set[str] = set()
    for index in range(count):
        turn, place = divmod(index, len(INTENTS))
        intent = INTENTS[place]
        templates = intent.templates[TEMPLATES[split]]
        template = templates[turn % len(templates)]
        example = _example(intent, template, split, rng)
        for _ in range(100):
            if example.message not in seen:
                break
            example = _example(intent, template, split, rng)
        seen.add(example.message)
        examples.append(example)
    return examples


def chat_line(example: Example) -> dict[str, object]:
    """Give the example as one line of a fine-tuning file in the chat format."""
    return {
        "messages": [
            {"role": "system", "content": SHORT_PROMPT},
            {"role": "user", "content": example.message},
            {"role": "assistant", "content": example.answer},
        ]
    }


def main() -> None:
    counts: dict[Split, int] = {"train": 400, "validation": 60, "test": 100}
    print(f"{len(INTENTS)} intents, {len(PRODUCTS)} products")
    print(f"short prompt {len(SHORT_PROMPT.split())} words, long {len(LONG_PROMPT.split())} words")
    for split in get_args(Split):
        examples = make(split, counts[split])
        templates = sum(len(intent.templates[TEMPLATES[split]]) for intent in INTENTS)
        different = len({example.message for example in examples})
        print(f"\n{split}: {len(examples)} examples ({different} different), {templates} templates")
        for example in examples[:: len(examples) // 5 + 1][:5]:
            print(f"  {example.message}\n    {example.answer}")


if __name__ == "__main__":
    main()
